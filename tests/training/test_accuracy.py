"""Which images an accuracy is measured on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from clray.config import Config, override
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.data.validation import with_validation
from clray.errors import TrainingError
from clray.model.encoder import ContrastiveModel
from clray.training import accuracy
from clray.training.accuracy import evaluate, evaluate_untrained
from clray.training.workers.process import LocalSession


@pytest.fixture
def config(tiny_config: Callable[..., Config]) -> Config:
    return tiny_config(data={"max_train_images": 400, "max_test_images": 100, "validation_fraction": 0.25})


def loaded(config: Config) -> Dataset:
    return with_validation(load_dataset(config.data), config.data)


def measured(config: Config, data: Dataset, *, with_test: bool) -> dict[str, float]:
    session = LocalSession(Path(), None, lambda _: None, torch.device("cpu"))
    torch.manual_seed(0)
    model = ContrastiveModel(config, data.num_channels, 10)
    return evaluate(config, model, data, session, with_test=with_test)


def wrong(data: Dataset, part: str) -> Dataset:
    """With every label of a part replaced by the next class."""
    images = getattr(data, part)
    return replace(data, **{part: replace(images, labels=(images.labels + 1) % data.num_classes)})


def test_validation_images_choose_and_the_test_images_are_looked_at_in_the_end_alone(config: Config) -> None:
    data = loaded(config)
    whole = measured(config, data, with_test=True)
    on_test = {name for name in whole if name.startswith("test/")}
    assert {"test/linear_accuracy", "test/linear_balanced_accuracy", "test/knn_accuracy"} <= on_test
    assert measured(config, data, with_test=False).keys() == whole.keys() - on_test
    for part, spoiled, kept in (("validation", "eval", "test"), ("test", "test", "eval")):
        found = measured(config, wrong(data, part), with_test=True)
        assert found[f"{spoiled}/knn_accuracy"] < 0.3 < whole[f"{spoiled}/knn_accuracy"]
        assert found[f"{kept}/knn_accuracy"] == whole[f"{kept}/knn_accuracy"]
    # The validation images also choose the strength of the penalty; the test images are looked at alone.
    assert found["test/linear_accuracy"] < 0.3 < whole["test/linear_accuracy"]


def test_without_validation_images_the_test_images_choose(config: Config) -> None:
    data = replace(loaded(config), validation=None)
    found = measured(config, data, with_test=True)
    assert found["eval/linear_accuracy"] == found["test/linear_accuracy"]
    assert measured(config, data, with_test=False)["eval/linear_accuracy"] == found["eval/linear_accuracy"]


def test_the_untrained_encoder_is_measured_on_both(config: Config) -> None:
    found = evaluate_untrained(config, loaded(config))
    assert {"eval/linear_accuracy", "test/linear_accuracy"} <= found.keys()
    assert evaluate_untrained(config, loaded(config))["eval/knn_accuracy"] == found["eval/knn_accuracy"]


def test_it_is_the_training_images_that_teach(config: Config) -> None:
    """Labels that are all one class further in both parts are as right as those of today."""
    data = replace(loaded(config), validation=None)
    for part in ("train", "test"):
        assert measured(config, wrong(data, part), with_test=True)["eval/knn_accuracy"] < 0.3
    both = wrong(wrong(data, "train"), "test")
    assert measured(config, both, with_test=True)["eval/knn_accuracy"] > 0.3


def test_representations_are_those_of_the_images_without_augmentation(config: Config) -> None:
    """A test set that is the training set is found in it, neighbour by neighbour."""
    config = override(config, {"evaluate.num_neighbors": 1})
    data = loaded(config)
    assert measured(config, replace(data, test=data.train), with_test=True)["test/knn_accuracy"] == 1


def test_a_model_that_gives_nan_is_not_evaluated(config: Config) -> None:
    model = ContrastiveModel(config, 1, 10)
    with torch.no_grad():
        next(model.encoder.parameters()).fill_(np.nan)
    session = LocalSession(Path(), None, lambda _: None, torch.device("cpu"))
    with pytest.raises(TrainingError, match="NaN or infinity"):
        evaluate(config, model, loaded(config), session, with_test=False)


def _rank_of_two(rank: int, folder: str, config: Config) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    probes: list[int] = []
    learn = accuracy.LinearProbe.measure
    accuracy.LinearProbe.measure = lambda self, *a, **k: (probes.append(rank), learn(self, *a, **k))[1]
    session = LocalSession(Path(), None, lambda _: None, torch.device("cpu"), rank=rank, world_size=2)
    torch.manual_seed(0)
    data = loaded(config)
    model = ContrastiveModel(config, data.num_channels, 10)
    shared = evaluate(config, model, data, session, with_test=True)
    whole = {name: value for name, value in measured(config, data, with_test=True).items() if name != "eval/seconds"}
    # Rank 0 measures for both, and then each by itself.
    assert probes == ([0, 0] if rank == 0 else [1])
    # The views are of the images of rank 0.
    assert 0 < shared["eval/alignment"] != whole.pop("eval/alignment") > 0
    for name, value in whole.items():
        assert shared[name] == pytest.approx(value, abs=1e-6), name
    with torch.no_grad():
        # One worker alone meets it; both hear of it.
        next(model.encoder.parameters()).fill_(np.nan if rank == 1 else 0.1)
    with pytest.raises(TrainingError, match="NaN or infinity"):
        evaluate(config, model, data, session, with_test=False)
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_measure_once_what_one_measures(config: Config, tmp_path: Path) -> None:
    small = override(config, {"data.max_train_images": 120, "data.max_test_images": 40})
    mp.spawn(_rank_of_two, (str(tmp_path), small), nprocs=2)


def told_by_labels(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if "accuracy" in name}


def without_labels(data: Dataset, part: str, rows: object = slice(None)) -> Dataset:
    images = getattr(data, part)
    labels = images.labels.copy()
    labels[rows] = -1
    return replace(data, **{part: replace(images, labels=labels)})


def test_what_labels_do_not_tell_is_left_out(config: Config) -> None:
    data = loaded(config)
    assert not told_by_labels(measured(config, without_labels(data, "train"), with_test=True))
    found = measured(config, without_labels(data, "validation"), with_test=True)
    assert {name.partition("/")[0] for name in found} == {"eval", "test"}
    assert "eval/linear_accuracy" not in found


def test_unlabelled_images_take_no_part(config: Config) -> None:
    """Neither in teaching nor in being judged: the same as without these images."""
    data = loaded(config)
    for part in ("train", "test"):
        images = getattr(data, part)
        rows = np.arange(len(images)) % 3 == 0
        fewer = replace(data, **{part: images.select(np.flatnonzero(~rows))})
        hidden, left_out = (
            measured(config, each, with_test=True) for each in (without_labels(data, part, rows), fewer)
        )
        assert told_by_labels(hidden) == pytest.approx(told_by_labels(left_out), abs=0.02)


def test_what_needs_no_labels_is_measured_and_draws_nothing_from_the_generator_of_training(config: Config) -> None:
    data = loaded(config)
    session = LocalSession(Path(), None, lambda _: None, torch.device("cpu"))
    torch.manual_seed(0)
    model = ContrastiveModel(config, data.num_channels, 10)
    before = torch.get_rng_state()
    found = evaluate(config, model, data, session, with_test=True)
    assert torch.equal(torch.get_rng_state(), before)
    names = ("rankme", "alignment", "uniformity", "silhouette", "stability", "confident_fraction")
    assert {f"eval/{name}" for name in names} <= found.keys()
    assert not {f"test/{name}" for name in names} & found.keys()
    assert 0 < found["eval/alignment"] < 4
