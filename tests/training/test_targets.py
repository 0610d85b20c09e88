"""What a run measures against attributes, and by a labelled set of its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.datasets import load_digits

from clray.clusters.statistics import cluster_metrics
from clray.config import Config, parse_config
from clray.data.parts import load_parts
from clray.data.samples import Dataset
from clray.errors import UserError
from clray.training.accuracy import evaluate_checkpoint
from clray.training.checkpoint import read_checkpoint
from clray.training.headline import with_metric
from clray.training.start import prepare, start_clusters
from clray.training.trainer import run
from clray.training.workers.process import LocalSession


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' pixels in two files: the smaller also knows the digit."""
    found = tmp_path_factory.mktemp("vectors")
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.data))[:600]
    x, digit = digits.data[order].astype(np.float32), digits.target[order]
    known = {"vector": pa.array(x.tolist(), pa.list_(pa.float32())), "parity": digit % 2, "material": digit}
    whole = pa.table(known)
    pq.write_table(whole.slice(0, 400), found / "big.parquet")
    pq.write_table(whole.slice(400).rename_columns(["vector", "parity", "digit"]), found / "small.parquet")
    return found


def config_of(folder: Path, *targets: str, **data: object) -> Config:
    tree = {
        "data": {"name": "embeddings", "train_path": str(folder / "big.parquet"), **data},
        "clusters": {"source": "column", "column": "parity"},
        "encoder": {"hidden_dim": 32},
        "train": {"num_epochs": 1, "global_batch_size": 100},
        "evaluate": {"targets": list(targets)},
    }
    return parse_config(tree)


def trained(config: Config, folder: Path) -> tuple[Dataset, dict[str, float]]:
    data = load_parts(config.data, config.evaluate.targets)
    settled = with_metric(config, data)
    assert settled.sweep.metric == "eval/linear_accuracy"
    session = LocalSession(folder, None, lambda _: None, torch.device("cpu"))
    return data, run(settled, data, session, prepare(settled, data))


def test_attributes_are_the_only_knowledge(folder: Path, tmp_path: Path) -> None:
    data, found = trained(config_of(folder, "material", "parity"), tmp_path)
    parity = data.train.columns["parity"]
    # Clusters are those of the parity, which tells one bit of the digit and all of itself.
    told = cluster_metrics(parity, data.train.columns["material"], 2)
    assert found["clusters/mutual_information_bits"] == told["clusters/mutual_information_bits"] > 0.9
    assert found["clusters/nmi/parity"] == pytest.approx(1)
    for name in ("eval/linear_accuracy", "eval/knn_accuracy", "test/linear_accuracy"):
        assert 0.5 < found[name] < 1
        assert 0.6 < found[f"{name}/parity"] < 1
    assert not any(name.endswith("/material") for name in found)


def test_clusters_of_labels_are_those_of_the_target_in_their_place(folder: Path) -> None:
    config = config_of(folder, "material")
    config = parse_config({**config.model_dump(mode="json"), "clusters": {"source": "labels"}})
    (clusters,) = start_clusters(config, load_parts(config.data, config.evaluate.targets))
    assert clusters.num_clusters == 10


def test_a_labelled_set_teaches_and_judges_while_other_images_are_trained_on(folder: Path, tmp_path: Path) -> None:
    config = config_of(folder, labelled_path=str(folder / "small.parquet"), label_column="digit")
    data, found = trained(config, tmp_path)
    assert len(data.train) == 400
    for name in ("eval/linear_accuracy", "eval/knn_accuracy", "test/linear_accuracy", "test/knn_accuracy"):
        assert found[name] > 0.5
    # Of the training images no label is known.
    assert "clusters/mutual_information_bits" not in found
    assert {"clusters/entropy_bits", "eval/rankme", "eval/stability"} <= found.keys()
    again = evaluate_checkpoint(read_checkpoint(tmp_path), config, data)
    assert again["test/linear_accuracy"] == pytest.approx(found["test/linear_accuracy"])
    # What needs no labels is measured on what is trained on.
    fewer = replace(data, labelled_set=data.teachers.select(np.arange(20)))
    other = evaluate_checkpoint(read_checkpoint(tmp_path), config, fewer)
    assert other["test/knn_accuracy"] < again["test/knn_accuracy"]
    assert other["eval/rankme"] == again["eval/rankme"]


def test_a_measure_of_what_is_no_target_is_refused(folder: Path) -> None:
    config = config_of(folder, "material")
    config = config.model_copy(update={"sweep": config.sweep.model_copy(update={"metric": "eval/knn_accuracy/parity"})})
    data = load_parts(config.data, config.evaluate.targets)
    with pytest.raises(UserError, match=r"sweep\.metric=eval/knn_accuracy/parity: the labels of these data tell"):
        with_metric(config, data)
