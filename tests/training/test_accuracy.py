"""Which images an accuracy is measured on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from clray.config import Config
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.data.validation import with_validation
from clray.model.encoder import ContrastiveModel
from clray.training.accuracy import evaluate, evaluate_untrained
from clray.training.workers.session import LocalSession


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
