"""Which images an accuracy is measured on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clray.config import Config, override
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.data.validation import with_validation
from clray.errors import TrainingError
from clray.model.encoder import ContrastiveModel
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
    assert measured(config, data, with_test=False).keys() == whole.keys() - {
        "test/linear_accuracy",
        "test/knn_accuracy",
    }
    for part, spoiled, kept in (("validation", "eval", "test"), ("test", "test", "eval")):
        found = measured(config, wrong(data, part), with_test=True)
        assert found[f"{spoiled}/knn_accuracy"] < 0.3 < whole[f"{spoiled}/knn_accuracy"]
        assert found[f"{kept}/knn_accuracy"] == whole[f"{kept}/knn_accuracy"]


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
