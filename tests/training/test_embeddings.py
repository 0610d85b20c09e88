"""Cl-InfoNCE on frozen vectors, from the config to what is left of the run."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.datasets import load_digits

import clray
from clray.config import Config, parse_config
from clray.data.load import load_dataset
from clray.errors import UserError
from clray.evaluate.labelled import Labelled
from clray.evaluate.nearest_neighbors import nearest_neighbor_measures
from clray.kmeans.refresh import LocalKMeans
from clray.model.encoder import ContrastiveModel
from clray.training.checkpoint import read_checkpoint
from clray.training.export import export_encoder
from clray.training.start import prepare
from clray.training.trainer import run
from clray.training.workers.process import LocalSession

NUM_TRAIN = 1300
MakeConfig = Callable[..., Config]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' pixels among as many values that have nothing to do with the class, as in features of all kinds."""
    digits, generator = load_digits(), np.random.default_rng(0)
    order = generator.permutation(len(digits.data))
    nuisance = generator.normal(scale=12, size=digits.data.shape)
    x = np.concatenate([digits.data, nuisance], axis=1)[order].astype(np.float16)
    folder = tmp_path_factory.mktemp("vectors")
    for name, rows in (("train", slice(None, NUM_TRAIN)), ("test", slice(NUM_TRAIN, None))):
        np.save(folder / f"{name}.npy", x[rows])
        np.save(folder / f"{name}_labels.npy", digits.target[order][rows])
    return folder


def config_of(folder: Path, **sections: dict) -> Config:
    data = {
        "name": "embeddings", "train_path": str(folder / "train.npy"), "test_path": str(folder / "test.npy"),
        "labels_path": str(folder / "train_labels.npy"), "test_labels_path": str(folder / "test_labels.npy"),
        "validation_fraction": 0,
    }  # fmt: skip
    tree = {
        "data": data, "clusters": {"source": "labels"}, "train": {"num_epochs": 15, "global_batch_size": 256},
        "encoder": {"hidden_dim": 128},
    }  # fmt: skip
    return parse_config({**tree, **{name: {**tree.get(name, {}), **values} for name, values in sections.items()}})


def trained(config: Config, folder: Path) -> dict[str, float]:
    data = load_dataset(config.data)
    prepare(config, data)
    session = LocalSession(folder, LocalKMeans(config.kmeans), lambda _: None, torch.device("cpu"))
    return run(config, data, session)


@pytest.mark.parametrize("encoder", ["mlp", "none"])
def test_cl_infonce_with_labels_finds_what_nearest_neighbours_of_the_vectors_do_not(
    vectors: Path, tmp_path: Path, encoder: str
) -> None:
    config = config_of(vectors, encoder={"name": encoder})
    metrics = trained(config, tmp_path)
    data = load_dataset(config.data)
    parts = (Labelled(part.images.vectors, part.labels) for part in (data.train, data.test))
    raw = nearest_neighbor_measures(
        *parts, num_classes=data.num_classes, num_neighbors=config.evaluate.num_neighbors, device=torch.device("cpu")
    )["knn_accuracy"]
    assert raw < 0.75
    assert metrics["eval/knn_accuracy"] > raw + 0.05


def test_kmeans_clusters_of_vectors_are_learned(vectors: Path, tmp_path: Path) -> None:
    config = config_of(vectors, clusters={"source": "kmeans", "num_clusters": 20}, train={"num_epochs": 4})
    metrics = trained(config, tmp_path)
    assert metrics["clusters/num_clusters"] == 20
    assert metrics["clusters/mutual_information_bits"] > 0.2


@pytest.mark.parametrize("encoder", ["mlp", "none"])
def test_a_run_on_vectors_is_exported_and_embeds_others(vectors: Path, tmp_path: Path, encoder: str) -> None:
    config = config_of(vectors, encoder={"name": encoder}, train={"num_epochs": 1, "precision": "float32"})
    trained(config, tmp_path)
    module = clray.load_encoder(tmp_path)
    h = clray.embed(module, vectors / "test.npy")
    x = np.load(vectors / "test.npy").astype(np.float32)
    np.testing.assert_allclose(clray.embed(module, x), h, atol=1e-5)
    with torch.no_grad():
        np.testing.assert_allclose(module(torch.from_numpy(x)), h, atol=1e-5)
        np.testing.assert_allclose(module(module.transform(x[3])[None])[0], h[3], atol=1e-5)
    np.testing.assert_allclose(clray.embed(module, 1000 * x), h, atol=1e-4)
    with pytest.raises(UserError, match=r"expected vectors as floats \[N, 128\]; got float32 \[497, 5\]"):
        clray.embed(module, x[:, :5])
    np.save(tmp_path / "five.npy", x[:, :5])
    with pytest.raises(UserError, match="the vectors have 5 dimensions, the encoder was trained on 128"):
        clray.embed(module, tmp_path / "five.npy")

    export_encoder(read_checkpoint(tmp_path), config, tmp_path / "encoder.safetensors")
    encoder_alone = ContrastiveModel(config, 128, 10).encoder
    encoder_alone.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    with torch.no_grad():
        np.testing.assert_allclose(encoder_alone.eval()(torch.from_numpy(x)), h, atol=1e-5)
