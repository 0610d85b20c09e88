"""Vectors in the place of images: what is read, and what is refused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from clray.config import parse_config
from clray.config.sections import AugmentationConfig, DataConfig
from clray.data.check import check_data
from clray.data.feature_views import FeatureViews, to_unit_scale
from clray.data.load import check_files, kind_of, load_dataset
from clray.data.loaders import ordered_batches
from clray.errors import UserError

VECTORS = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
LABELS = np.arange(12) % 3


def config(folder: Path, name: str = "x.npy", **changes: object) -> DataConfig:
    paths = {key: str(folder / value) for key, value in changes.items() if key.endswith("_path")}
    return DataConfig(name="embeddings", train_path=str(folder / name), **{**changes, **paths})


def as_lists(vectors: np.ndarray) -> pa.Array:
    return pa.array(vectors.tolist(), pa.list_(pa.float32()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", VECTORS)
    np.save(tmp_path / "t.npy", LABELS)
    columns = {"embedding": as_lists(VECTORS), "label": LABELS, "colour": list("rgbr") * 3}
    pq.write_table(pa.table(columns), tmp_path / "x.parquet", row_group_size=5)
    return tmp_path


@pytest.mark.parametrize("name", ["x.npy", "x.parquet"])
def test_vectors_and_labels_come_in_the_order_of_their_files(folder: Path, name: str) -> None:
    beside = {"labels_path": "t.npy", "test_labels_path": "t.npy"} if name == "x.npy" else {}
    chosen = config(folder, name, test_path=name, **beside)
    check_files(chosen)
    data = load_dataset(chosen)
    ((vectors, rows),) = ordered_batches(data.train, np.array([7, 0, 3]), batch_size=3, config=chosen)
    np.testing.assert_array_equal(vectors[:, :, 0, 0], VECTORS[[7, 0, 3]])
    assert rows.tolist() == [7, 0, 3]
    assert data.train.labels.tolist() == LABELS.tolist()
    assert data.num_channels == 5
    assert set(data.train.columns) == ({"colour"} if name == "x.parquet" else set())


def test_the_files_of_a_folder_are_one_data_set_and_their_names_tell_its_parts(folder: Path, tmp_path: Path) -> None:
    parts = folder / "parts"
    parts.mkdir()
    for number, rows in enumerate((slice(0, 4), slice(4, 9))):
        table = pa.table({"x": as_lists(VECTORS[rows].astype(np.float16)), "label": LABELS[rows]})
        pq.write_table(table, parts / f"train-{number:05d}-of-00002.parquet")
    pq.write_table(pa.table({"x": as_lists(VECTORS[9:]), "label": LABELS[9:]}), parts / "test-00000-of-00001.parquet")
    data = load_dataset(config(tmp_path, "parts"))
    assert (len(data.train), len(data.test)) == (9, 3)
    np.testing.assert_allclose(data.train.images.vectors, VECTORS[:9], atol=2e-3)
    assert data.train.images.name(4).endswith("train-00001-of-00002.parquet, row 0")
    assert data.train.select(np.array([8])).images.name(0).endswith("train-00001-of-00002.parquet, row 4")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0])
def test_vectors_without_a_direction_are_named_or_left_out(folder: Path, bad: float) -> None:
    vectors = VECTORS.copy()
    vectors[2] = bad
    np.save(folder / "x.npy", vectors)
    chosen = config(folder, labels_path="t.npy", test_path="x.npy", test_labels_path="t.npy")
    with pytest.raises(UserError, match=r"x\.npy, row 2: (a value is NaN|all values are 0).*such are 1 of 12"):
        load_dataset(chosen)
    assert check_data(chosen).num_bad == 2
    data = load_dataset(chosen.model_copy(update={"on_bad_image": "skip"}))
    assert (len(data.train), len(data.test), len(data.skipped)) == (11, 11, 1)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS[:5], "holds 5 labels for 12 vectors"),
        (LABELS[:, None], r"expected labels of shape \[N\].*\[12, 1\]"),
        (LABELS + 0.5, r"expected labels .* whole numbers or text; got .* float64"),
        (np.array([{}] * 12), "not readable as .npy"),
    ],
)
def test_labels_that_do_not_fit_are_refused(folder: Path, labels: np.ndarray, message: str) -> None:
    np.save(folder / "t.npy", labels, allow_pickle=True)
    with pytest.raises(UserError, match=rf"data\.labels_path: .*t\.npy: {message}"):
        load_dataset(config(folder, labels_path="t.npy"))


def test_vectors_that_do_not_fit_are_refused(folder: Path) -> None:
    beside = {"labels_path": "t.npy", "test_labels_path": "t.npy"}
    np.save(folder / "other.npy", VECTORS[:, :4])
    with pytest.raises(UserError, match="training vectors have 5 dimensions and the test vectors 4"):
        load_dataset(config(folder, test_path="other.npy", **beside))
    with pytest.raises(UserError, match=r"its vectors have . dimensions, those of"):
        load_dataset(config(folder, "[ox]*.npy"))
    with pytest.raises(UserError, match=r"holds \.npy and \.parquet files"):
        load_dataset(config(folder, "x.*"))
    np.save(folder / "large.npy", np.ones((300_000, 2), np.float16))
    with pytest.raises(UserError, match=r"300000 vectors of 2 dimensions take 2 MiB, more than .*memory_limit_mib=1"):
        load_dataset(config(folder, "large.npy", memory_limit_mib=1))


def test_a_file_of_vectors_tells_what_reads_it(folder: Path) -> None:
    assert kind_of(folder / "x.npy") == "embeddings"
    assert kind_of(folder / "x.parquet") == "embeddings"


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"encoder": {"name": "resnet18"}}, r"encoder\.name=resnet18 takes images.*mlp or none"),
        ({"augmentation": {"name": "simclr"}}, r"augmentation\.name must be features"),
        (
            {"data": {"name": "digits"}, "encoder": {"name": "mlp"}},
            r"encoder\.name=mlp takes vectors; data",
        ),
        ({"data": {"name": "digits"}, "augmentation": {"name": "features"}}, r"must be features where data\.name"),
        ({"data": {"name": "digits", "labels_path": "x"}}, "labels_path belongs to data.name=embeddings"),
        (
            {"data": {"name": "embeddings", "train_path": "x", "image_size": 8}},
            "image_size: .* vectors, which have",
        ),
    ],
)
def test_what_belongs_to_images_is_refused(tree: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_config({"data": {"name": "embeddings", "train_path": "x"}, **tree})


def test_embeddings_choose_their_encoder_and_views() -> None:
    chosen = parse_config({"data": {"name": "embeddings", "train_path": "x"}, "encoder": None})
    assert (chosen.encoder.name, chosen.augmentation.name) == ("mlp", "features")


def test_views_of_a_vector_are_noisy_lack_values_and_do_not_depend_on_its_scale() -> None:
    vectors = torch.randn(50, 400, 1, 1)
    views = FeatureViews(AugmentationConfig(name="features", noise=0.5, dropout=0.25))
    drawn = []
    for scale in (1.0, 1e-20, 1e30):
        torch.manual_seed(0)
        drawn.append(views(scale * vectors, 3))
    torch.testing.assert_close(drawn[0], drawn[1])
    torch.testing.assert_close(drawn[0], drawn[2])
    kept = drawn[0] != 0
    assert abs(kept.float().mean() - 0.75) < 0.01
    noise = (drawn[0] - to_unit_scale(vectors))[kept]
    assert abs(noise.std() - 0.5) < 0.01
    assert not torch.equal(drawn[0][0], drawn[0][1])
    still = FeatureViews(AugmentationConfig(name="features", noise=0, dropout=0))(vectors, 2)
    torch.testing.assert_close(still, to_unit_scale(vectors).expand(2, -1, -1, -1, -1))
    torch.testing.assert_close(still.square().mean(dim=2), torch.ones(2, 50, 1, 1))
