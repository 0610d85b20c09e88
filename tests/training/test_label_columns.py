"""What further columns of labels, and several labels an image, tell of a run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import clray
from clray.config import Config, override
from clray.data.load import load_dataset
from clray.data.validation import with_validation
from clray.errors import UserError
from clray.training.headline import with_metric
from tests.conftest import TINY, png

COUNT = 64
SECTIONS = {**TINY, "augmentation": {"name": "simclr"}, "train": {**TINY["train"], "num_epochs": 2}}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("table") / "t.parquet"
    columns = {
        "species": [("ant", "bee", "cat")[i % 3] for i in range(COUNT)],
        "colour": [("red", "blue", None, "blue")[i % 4] for i in range(COUNT)],
        "tags": [[["wet"], ["wet", "old"], []][i % 3] for i in range(COUNT)],
    }
    pq.write_table(pa.table({"image": [png(i) for i in range(COUNT)], **columns}), path)
    return path


def sections(table: Path, *columns: str, metric: str = "auto") -> dict:
    data = {"name": "parquet", "train_path": str(table), "validation_fraction": 0.2, "label_columns": list(columns)}
    return {**SECTIONS, "data": data, "sweep": {"metric": metric}}


def test_a_run_is_measured_by_every_column(table: Path, tmp_path: Path) -> None:
    tree = sections(table, "species", "colour", "tags", metric="eval/knn_accuracy/colour")
    run = clray.train(tree, {"output": str(tmp_path)}, debug=True)
    alone = clray.train(sections(table, "species"), {"output": str(tmp_path / "alone")}, debug=True)
    for name in ("linear_accuracy", "knn_accuracy"):
        assert {f"{part}/{name}{of}" for part in ("eval", "test") for of in ("", "/colour")} <= run.metrics.keys()
        assert f"eval/{name}/tags" not in run.metrics
    assert 0 < run.metrics["test/linear_mean_average_precision/tags"] <= 1
    assert run.metrics["clusters/mutual_information_bits/colour"] >= 0
    assert run.metrics["clusters/label_entropy_bits/tags"] == pytest.approx(run.metrics["clusters/label_entropy_bits"])
    same = {name: value for name, value in alone.metrics.items() if "second" not in name}
    assert {name: run.metrics[name] for name in same} == same, "further columns change nothing"


def test_several_labels_an_image_are_measured_by_precision(table: Path, tmp_path: Path) -> None:
    run = clray.train(sections(table, "tags"), {"output": str(tmp_path), "tracking.pictures": "all"}, debug=True)
    assert not [name for name in run.metrics if "accuracy" in name and name.startswith(("eval/", "test/"))]
    for part in ("eval", "test"):
        for name in ("linear", "knn"):
            assert 0 < run.metrics[f"{part}/{name}_mean_average_precision"] <= 1
    assert run.metrics["clusters/label_entropy_bits"] == pytest.approx(np.log2(3), abs=0.02)
    assert (run.folder / "information_plane.png").exists()


def test_a_labelled_set_beside_the_images_brings_its_columns(table: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [png(100 + i) for i in range(COUNT)]}), tmp_path / "images.parquet")
    tree = sections(table, "tags", "colour")
    tree["data"] |= {"train_path": str(tmp_path / "images.parquet"), "labelled_path": str(table)}
    # A column that is a target too is measured once.
    tree["evaluate"] = {**TINY["evaluate"], "targets": ["colour", "species"]}
    metrics = clray.train(tree, {"output": str(tmp_path)}, debug=True).metrics
    assert 0 < metrics["test/linear_mean_average_precision"] <= 1
    assert {f"eval/knn_accuracy/{column}" for column in ("colour", "species")} <= metrics.keys()
    assert not [name for name in metrics if "mutual_information" in name], "the clusters are of other images"


def settled(make: Callable[..., Config], tree: dict) -> Config:
    config = make(**{name: tree[name] for name in ("data", "augmentation", "sweep")})
    return with_metric(config, with_validation(load_dataset(config.data), config.data))


def test_the_measure_that_ranks_is_one_that_the_labels_tell(table: Path, tiny_config: Callable[..., Config]) -> None:
    for columns, metric, expected in (
        (("species", "colour"), "auto", "eval/linear_accuracy"),
        (("tags", "colour"), "auto", "eval/linear_mean_average_precision"),
        (("species", "tags"), "eval/knn_mean_average_precision/tags", "eval/knn_mean_average_precision/tags"),
        (("species", "colour"), "eval/linear_accuracy/colour", "eval/linear_accuracy/colour"),
    ):
        assert settled(tiny_config, sections(table, *columns, metric=metric)).sweep.metric == expected
    for columns, metric, known in (
        (("species", "colour"), "eval/linear_accuracy/hue", "eval/linear_accuracy/colour"),
        (("species", "colour"), "eval/linear_accuracy/species", "eval/linear_accuracy,"),
        (("tags",), "eval/linear_accuracy", "eval/linear_mean_average_precision"),
        (("species", "tags"), "eval/linear_accuracy/tags", "eval/linear_mean_average_precision/tags"),
    ):
        with pytest.raises(UserError, match=rf"sweep.metric={metric}: the labels of these data tell .*{known}"):
            settled(tiny_config, sections(table, *columns, metric=metric))


def test_clusters_of_labels_are_those_of_sets(table: Path, tiny_config: Callable[..., Config]) -> None:
    from clray.training.start import start_clusters

    config = override(tiny_config(data=sections(table, "tags")["data"]), {"clusters.source": "labels"})
    assert start_clusters(config, load_dataset(config.data))[0].num_clusters == 3
