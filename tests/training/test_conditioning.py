"""Values in place of clusters: read from columns or a file, refused where they tell nothing, and trained on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from clray.config import Config
from clray.config.sections import DataConfig
from clray.data.images.array import ArrayImages
from clray.data.load import load_dataset
from clray.data.samples import Dataset, Samples
from clray.errors import UserError
from clray.training.accuracy import evaluate_checkpoint
from clray.training.checkpoint import read_checkpoint
from clray.training.start import prepare, start_clusters
from tests.training.test_members import are_equal, weights
from tests.training.test_trainer import train

MakeConfig = Callable[..., Config]
NUM_IMAGES = 40
WEIGHTS = np.linspace(0.5, 9.5, NUM_IMAGES)


@pytest.fixture
def data() -> Dataset:
    codes = np.arange(NUM_IMAGES, dtype=np.int32)
    columns = {
        "weight": codes // 10, "age": codes % 4, "colour": codes % 2, "round": codes % 2, "year": codes * 0,
        "height": codes % 2, "lost": codes // 30, "share": codes * 0,
    }  # fmt: skip
    names = {
        None: ("a", "b"), "weight": ("(0, 3]", "(3, 5]", "(5, 7]", "(7, 10]"), "age": ("2", "3", "5", "8"),
        "colour": ("blue", "red"), "round": ("no", "yes"), "year": ("1999",), "height": ("1.5", "nan"),
        "lost": ("(0, 1]", "nan"), "share": ("123.456",),
    }  # fmt: skip
    lost = np.where(codes < 30, WEIGHTS, np.nan)
    train = Samples(
        ArrayImages(np.zeros((NUM_IMAGES, 1, 8, 8), np.uint8)), codes % 2, columns,
        numbers={"weight": WEIGHTS, "lost": lost},
    )  # fmt: skip
    return Dataset(train, train, num_classes=2, num_channels=1, names=names)


def of_columns(make: MakeConfig, *columns: str, **objective: object) -> Config:
    return make(
        clusters={"value_columns": list(columns)}, objective={"name": "ccl-k", "kernel": "rbf", **objective}
    )  # fmt: skip


def values_of(config: Config, data: Dataset) -> np.ndarray:
    (assignment,) = start_clusters(config, data)
    assert assignment.values is not None
    assert assignment.source == "values"
    return assignment.values


def test_columns_are_standardised_and_scaled_by_the_median_distance(data: Dataset, tiny_config: MakeConfig) -> None:
    values = values_of(of_columns(tiny_config, "weight", "age", "round"), data)
    raw = np.stack([WEIGHTS, np.tile([2, 3, 5, 8], 10), np.tile([0, 1], 20)], axis=1)
    standardised = (raw - raw.mean(axis=0)) / raw.std(axis=0)
    ratios = values / standardised
    np.testing.assert_allclose(ratios, ratios[0, 0], rtol=1e-5)
    distances = [np.linalg.norm(values[i] - values[j]) for i in range(NUM_IMAGES) for j in range(i)]
    assert np.median(distances) == pytest.approx(1, rel=1e-5)
    assert values.dtype == np.float32


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("size", r"size is no column; the data have: weight, age"),
        ("colour", r"colour must hold numbers, and has the value 'blue'"),
        ("year", r"year is 1999 for every training image and tells none apart; leave it out"),
        ("share", r"share is 123\.456 for every training image and tells none apart; leave it out"),
        ("height", r"height: 20 of 40 training images have a value that is missing or infinite, the first is number 1"),
        ("lost", r"lost: 10 of 40 training images have a value that is missing or infinite, the first is number 30"),
    ],
)
def test_a_column_without_a_number_for_each_image_is_refused(
    column: str, message: str, data: Dataset, tiny_config: MakeConfig
) -> None:
    with pytest.raises(UserError, match=message):
        start_clusters(of_columns(tiny_config, "weight", column), data)


def of_vectors(make: MakeConfig, folder: Path, vectors: np.ndarray, **sections: dict) -> Config:
    path = folder / "vectors.npy"
    np.save(path, vectors)
    return make(clusters={"path": str(path)}, **{"objective": {"name": "ccl-k"}, **sections})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v[:-1], r"holds 39 vectors, there are 40 training images; give one vector for each"),
        (lambda v: np.where(np.arange(40)[:, None] == 7, np.nan, v), r"1 of 40 training .* the first is number 7"),
        (lambda v: np.where(np.arange(40)[:, None] == 0, np.inf, v), r"1 of 40 training .* the first is number 0"),
        (lambda v: v * 0 + 3, r"all have the same values, which tell none apart"),
        (lambda v: v[:, 0], r"vectors\.npy"),
    ],
)
def test_a_file_without_a_vector_for_each_image_is_refused(
    change: Callable[[np.ndarray], np.ndarray], message: str, data: Dataset, tiny_config: MakeConfig, tmp_path: Path
) -> None:
    vectors = np.random.default_rng(0).normal(size=(NUM_IMAGES, 3))
    with pytest.raises(UserError, match=message):
        start_clusters(of_vectors(tiny_config, tmp_path, change(vectors)), data)


def test_a_parquet_file_names_its_column(data: Dataset, tiny_config: MakeConfig, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(2, NUM_IMAGES, 3)).astype(np.float32)
    table = pd.DataFrame({"one": list(vectors[0]), "two": list(vectors[1])})
    table.to_parquet(tmp_path / "both.parquet")
    objective, path = {"name": "ccl-k"}, str(tmp_path / "both.parquet")
    found = values_of(tiny_config(clusters={"path": path, "column": "two"}, objective=objective), data)
    ratios = found / vectors[1]
    np.testing.assert_allclose(ratios, ratios[0, 0], rtol=1e-4)
    with pytest.raises(UserError, match="candidates: one, two"):
        start_clusters(tiny_config(clusters={"path": path}, objective=objective), data)


def test_few_values_apart_from_the_others_still_have_a_scale(
    data: Dataset, tiny_config: MakeConfig, tmp_path: Path
) -> None:
    vectors = np.zeros((NUM_IMAGES, 2))
    vectors[0] = 5
    assert np.isfinite(values_of(of_vectors(tiny_config, tmp_path, vectors), data)).all()


def test_a_note_says_how_many_positives_an_anchor_has_and_how_many_are_right(
    data: Dataset, tiny_config: MakeConfig, tmp_path: Path
) -> None:
    one_hot = np.eye(2)[data.train.labels]
    (note,) = prepare(of_vectors(tiny_config, tmp_path, one_hot, train={"global_batch_size": 40}), data).notes
    # 20 images of a label, of two views each, less the anchor.
    assert note == (
        "ccl-k: in a batch of 40 an anchor has about 39 positives; of the weight of other images 100% is of the "
        "anchor's label, by chance 49%"
    )
    unlabelled = replace(data, train=replace(data.train, labels=np.full(NUM_IMAGES, -1, np.int32)))
    (note,) = prepare(of_vectors(tiny_config, tmp_path, one_hot, train={"global_batch_size": 40}), unlabelled).notes
    assert note == "ccl-k: in a batch of 40 an anchor has about 39 positives"


def test_numbers_of_a_table_follow_their_images(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)
    weights = np.arange(60) + 0.25
    pd.DataFrame({"vector": list(pixels), "weight": weights, "count": np.arange(60)}).to_parquet(tmp_path / "t.parquet")
    config = DataConfig(name="embeddings", train_path=str(tmp_path / "t.parquet"), max_train_images=40)
    train = load_dataset(config).train
    assert set(train.numbers) == {"weight"}
    places = (train.numbers["weight"] - 0.25).astype(int)
    np.testing.assert_array_equal(np.stack([*train.images.each(np.arange(40))]).reshape(40, 4), pixels[places])
    chosen = train.select(np.array([3, 1]))
    np.testing.assert_array_equal(chosen.numbers["weight"], train.numbers["weight"][[3, 1]])


def test_a_run_on_one_hot_labels_is_supcon_and_reports_no_clusters(tiny_config: MakeConfig, tmp_path: Path) -> None:
    data = load_dataset(tiny_config().data)
    small = {"num_small_views": 1, "small_view_size": 6}
    config = of_vectors(
        tiny_config, tmp_path, np.eye(10)[data.train.labels], augmentation=small,
        objective={"name": "ccl-k", "kernel": "linear", "kernel_form": "mean-of-logs"},
    )  # fmt: skip
    found = train(config, data, tmp_path / "kernel")
    expected = train(tiny_config(objective={"name": "supcon"}, augmentation=small), data, tmp_path / "supcon")
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["train/loss"] == pytest.approx(theirs["train/loss"], rel=1e-3)
        assert ours["train/positives_per_anchor"] == pytest.approx(theirs["train/positives_per_anchor"], rel=1e-3)
        assert not [name for name in ours if name.startswith("clusters/")]
    again = evaluate_checkpoint(read_checkpoint(tmp_path / "kernel"), config, data)
    assert again["eval/knn_accuracy"] == found[-1]["eval/knn_accuracy"]
    assert not [name for name in again if name.startswith("clusters/")]


def test_a_resumed_run_is_to_the_bit_what_it_would_have_been(tiny_config: MakeConfig, tmp_path: Path) -> None:
    data = load_dataset(tiny_config().data)
    vectors = np.random.default_rng(0).normal(size=(len(data.train), 3))
    config = of_vectors(tiny_config, tmp_path, vectors)
    train(config, data, tmp_path / "whole")
    train(config, data, tmp_path / "parts", stop_after=2)
    train(config, data, tmp_path / "parts")
    assert are_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert all(torch.isfinite(each).all() for each in weights(tmp_path / "whole"))
