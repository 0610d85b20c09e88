import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from clray.config.sections import EvaluateConfig
from clray.evaluate.linear_probe import choose_labelled, linear_probe_accuracy

CPU = torch.device("cpu")


def test_comes_close_to_logistic_regression_on_the_pixels_of_digits() -> None:
    x, y = load_digits(return_X_y=True)
    x, y = x.astype(np.float32), y.astype(np.int64)
    splits = (x[:1200], y[:1200], x[1200:], y[1200:])
    found = linear_probe_accuracy(*splits, num_classes=10, config=EvaluateConfig(probe_epochs=50), seed=0, device=CPU)
    reference = LogisticRegression(max_iter=2000).fit(x[:1200] / 16, y[:1200]).score(x[1200:] / 16, y[1200:])
    assert found == pytest.approx(reference, abs=0.03)


def test_noise_cannot_be_told_apart() -> None:
    rng = np.random.default_rng(0)
    h, labels = rng.normal(size=(600, 4)).astype(np.float32), rng.integers(0, 4, 600)
    splits = (h[:300], labels[:300], h[300:], labels[300:])
    accuracy = linear_probe_accuracy(*splits, num_classes=4, config=EvaluateConfig(), seed=0, device=CPU)
    assert 0.1 < accuracy < 0.45


def test_few_labels_take_as_many_of_each_class() -> None:
    labels = np.repeat(np.arange(4), [50, 50, 50, 2])
    chosen = choose_labelled(labels, 5, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [5, 5, 5, 2]
    assert len(set(chosen)) == len(chosen)
    assert len(choose_labelled(labels, None, seed=0)) == len(labels)


def test_test_samples_are_scaled_by_what_the_training_samples_taught() -> None:
    """Neither a common offset nor the scale of a dimension changes what is right."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    h = (np.eye(3)[labels] + 0.3 * rng.normal(size=(600, 3))).astype(np.float32)
    accuracies = []
    for scale, offset in ((1.0, 0.0), (np.array([1e-3, 1.0, 1e3]), 50.0)):
        moved = (h * scale + offset).astype(np.float32)
        splits = (moved[:300], labels[:300], moved[300:], labels[300:])
        accuracies.append(
            linear_probe_accuracy(*splits, num_classes=3, config=EvaluateConfig(probe_epochs=20), seed=0, device=CPU)
        )
    assert accuracies[0] > 0.8
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.02)
