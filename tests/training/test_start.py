"""Runs that start from weights: what stays frozen, what is learnt at which rate, and what their results hold."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import clray
from clray.config import Config
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.errors import UserError
from clray.model.pixels import OnPixels
from clray.track.models import write_model
from clray.training.accuracy import evaluate_untrained
from clray.training.checkpoint import read_checkpoint, write_checkpoint
from clray.training.encoder_start import fresh_model, with_pixels
from clray.training.export import load_model
from clray.training.metrics import read_metrics
from clray.training.start import prepare
from clray.training.trainer import run
from clray.training.workers.process import LocalSession
from tests.training.test_checkpoint import CHECKPOINT
from tests.training.test_trainer import CPU, cluster_here, train, without_times

MakeConfig = Callable[..., Config]
MANY = {"num_clusters": 62}
"""So many that an anchor has few positives, which is nothing to be told of."""
PIXELS = {"mean": [0.3], "std": [0.2], "image_size": 12}


@pytest.fixture
def data(tiny_config: MakeConfig) -> Dataset:
    return load_dataset(tiny_config().data)


@pytest.fixture
def weights(tiny_config: MakeConfig, tmp_path: Path) -> Path:
    """Of another seed, so that they are not those that a run draws."""
    path = tmp_path / "weights.pt"
    torch.save(fresh_model(tiny_config(seed=5), 3, 6).encoder.state_dict(), path)
    return path


def encoder_of(folder: Path) -> dict[str, torch.Tensor]:
    model = read_checkpoint(folder)["model"]
    return {name: value for name, value in model.items() if name.startswith("encoder.")}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("negatives", ["batch", "queue"])
def test_a_frozen_encoder_stays_as_it_is_and_then_learns(
    tiny_config: MakeConfig, data: Dataset, weights: Path, tmp_path: Path, optimizer: str, negatives: str
) -> None:
    config = tiny_config(
        encoder={"weights": str(weights), "frozen_epochs": 2},
        train={"optimizer": optimizer, "num_epochs": 3},
        objective={"negatives": negatives, "queue_size": 64},
    )
    start = {f"encoder.backbone.{name}": value for name, value in torch.load(weights).items()}
    train(config, data, tmp_path / "run", stop_after=2)
    frozen = encoder_of(tmp_path / "run")
    assert frozen.keys() == start.keys()
    for name, value in frozen.items():
        assert torch.equal(value, start[name]), name
    resumed = train(config, data, tmp_path / "run")
    for name, value in encoder_of(tmp_path / "run").items():
        assert not torch.equal(value, start[name]), name
    assert without_times(train(config, data, tmp_path / "whole")) == without_times(resumed)


@pytest.mark.parametrize("negatives", ["batch", "queue"])
def test_kept_norm_statistics_are_those_of_the_weights_while_the_rest_learns(
    tiny_config: MakeConfig, data: Dataset, weights: Path, tmp_path: Path, negatives: str
) -> None:
    objective = {"negatives": negatives, "queue_size": 64}
    config = tiny_config(encoder={"weights": str(weights), "keep_norm_statistics": True}, objective=objective)
    start = {f"encoder.backbone.{name}": value for name, value in torch.load(weights).items()}
    train(config, data, tmp_path / "run")
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    learnt = encoder_of(tmp_path / "run")
    assert sum(name.endswith(statistics) for name in learnt) == 9
    for name, value in learnt.items():
        assert torch.equal(value, start[name]) == name.endswith(statistics), name
    clray.load_encoder(tmp_path / "run")


def test_a_run_from_weights_resumes_exports_and_embeds_alike(
    tiny_config: MakeConfig, data: Dataset, weights: Path, tmp_path: Path
) -> None:
    """Its results need the weights no more: the checkpoint knows its pixels."""
    config = tiny_config(encoder={"weights": str(weights), **PIXELS}, recluster={"warmup_epochs": 0})
    unresolved = tiny_config(encoder={"weights": str(weights), "mean": [0.3], "std": [0.2]}, data={"image_size": 8})
    folder = tmp_path / "run"
    train(config, data, folder)
    weights.unlink()
    encoder = clray.load_encoder(folder)
    assert isinstance(encoder.model.encoder, OnPixels)
    assert encoder.model.encoder.size == 12
    pixels = data.test.images.pixels[:5]
    h = clray.embed(encoder, pixels)
    # As a run's own config has them, which may leave to the weights what their pixels are.
    model = load_model(read_checkpoint(folder), config).eval()
    with torch.no_grad():
        np.testing.assert_allclose(h, model(torch.from_numpy(pixels).float() / 255).h, atol=1e-5)
    kept = read_checkpoint(folder)
    kept["config"]["encoder"] |= {"image_size": 16}
    assert load_model(kept, unresolved).encoder.size == 16


def test_what_a_run_starts_from_is_what_is_evaluated_untrained(
    tiny_config: MakeConfig, data: Dataset, weights: Path
) -> None:
    given, own = tiny_config(encoder={"weights": str(weights)}), tiny_config(seed=1)
    same, other = (fresh_model(tiny_config(seed=seed, encoder={"weights": str(weights)}), 1, 6) for seed in (0, 1))
    for name, value in same.encoder.state_dict().items():
        assert torch.equal(value, other.encoder.state_dict()[name])
    assert not torch.equal(same.head[0].weight, other.head[0].weight)
    assert evaluate_untrained(given, data)["eval/knn_accuracy"] != evaluate_untrained(own, data)["eval/knn_accuracy"]


def test_the_user_hears_what_matched_and_what_the_first_clusters_are(
    tiny_config: MakeConfig, data: Dataset, weights: Path
) -> None:
    matched, pixels = prepare(tiny_config(clusters=MANY, encoder={"weights": str(weights), **PIXELS}), data).notes
    assert f"15 of 15 tensors of the encoder come from {weights}" in matched
    assert pixels == "images enter the encoder scaled to 12 pixels, with mean 0.3 and deviation 0.2"
    (note,) = prepare(tiny_config(clusters=MANY, recluster={"warmup_epochs": 0}), data).notes
    assert "first clusters follow colours" in note
    assert prepare(tiny_config(clusters=MANY), data).notes == ()


def test_with_weights_the_first_epoch_trains_on_clusters_of_the_start(
    tiny_config: MakeConfig, data: Dataset, weights: Path, tmp_path: Path
) -> None:
    """Of representations, as the head is random: later ones are of embeddings, and start anew."""
    asked: list[tuple[np.ndarray, bool]] = []

    def cluster(vectors: np.ndarray, *arguments: Any, initial: list[np.ndarray] | None, **more: Any) -> Any:
        asked.append((vectors, initial is not None))
        return cluster_here(vectors, *arguments, initial=initial, **more)

    config = tiny_config(encoder={"weights": str(weights), "frozen_epochs": 1}, recluster={"warmup_epochs": 0})
    run(config, data, LocalSession(tmp_path, cluster, lambda _: None, CPU))
    model = fresh_model(config, 1, 6).eval()
    with torch.no_grad():
        h = model(torch.from_numpy(data.train.images.pixels).float() / 255).h
    np.testing.assert_allclose(asked[0][0], torch.nn.functional.normalize(h).numpy(), atol=1e-5)
    assert [(vectors.shape[1], warm) for vectors, warm in asked] == [(16, False), (8, False), (8, True)]
    first = read_metrics(tmp_path)[0]
    assert (first["clusters/num_clusters"], first["recluster/age_epochs"]) == (6, 0)


@pytest.mark.parametrize("size", [16, 7])
def test_a_size_that_the_model_does_not_take_is_refused_before_the_run(
    tiny_config: MakeConfig, data: Dataset, size: int
) -> None:
    pytest.importorskip("timm")
    config = tiny_config(clusters=MANY, encoder={"name": "timm/test_vit", "image_size": size})
    if size == 16:
        assert prepare(config, data).notes == ()
    else:
        with pytest.raises(UserError, match=r"encoder\.name=timm/test_vit: cannot"):
            prepare(config, data)


@pytest.mark.slow
def test_the_model_in_mlflow_takes_pixels_as_they_are(tiny_config: MakeConfig, data: Dataset, tmp_path: Path) -> None:
    """Grey, 8x8 and in 0..1, for a model of timm that takes three channels of 32x32, normalised."""
    import mlflow.pytorch

    pytest.importorskip("timm")
    config = tiny_config(encoder={"name": "timm/test_vit", "image_size": 32})
    state = fresh_model(config, 1, 6)
    held = {
        "config": with_pixels(config).model_dump(mode="json"),
        "num_clusters": [6],
        "cluster_ids": torch.zeros(1, 4).int(),
    }
    write_checkpoint(tmp_path / "run", {**CHECKPOINT, **held, "model": state.state_dict()})
    path = write_model(tmp_path / "run", config, data)
    model = mlflow.pytorch.load_model(str(path))
    pixels = torch.from_numpy(data.test.images.pixels[:7]).float() / 255
    with torch.no_grad():
        torch.testing.assert_close(model(pixels), state.encoder.eval()(pixels), rtol=1e-4, atol=1e-5)
