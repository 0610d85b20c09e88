"""What the probe reports, against scikit-learn's logistic regression with the same strengths to choose from."""

from functools import partial

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegressionCV
from sklearn.model_selection import PredefinedSplit
from sklearn.preprocessing import StandardScaler

from clray.evaluate import linear_probe
from clray.evaluate.labelled import Labelled, choose_labelled
from clray.evaluate.linear_probe import GRID, LinearProbe
from clray.evaluate.logistic import minimize

CPU = torch.device("cpu")


def probe(train: Labelled, validation: Labelled | None, num_classes: int) -> LinearProbe:
    return LinearProbe(train, validation, num_classes=num_classes, seed=0, device=CPU)


def representations(num_train: int, dim: int, *, num_classes: int = 10, num_validation: int = 1500) -> list[Labelled]:
    """Training, validation and test samples of overlapping classes, rectified as those of an encoder are."""
    rng = np.random.default_rng(dim)
    sizes = (num_train, num_validation, 4000)
    labels = rng.integers(0, num_classes, sum(sizes))
    signal = rng.normal(size=(num_classes, dim))[labels] * 0.3 + rng.normal(size=(sum(sizes), dim))
    mixed = (signal * np.geomspace(1, 0.05, dim)) @ rng.normal(size=(dim, dim)) / np.sqrt(dim)
    h = np.maximum(mixed, 0).astype(np.float32)
    ends = np.cumsum(sizes)
    return [Labelled(h[a:b], labels[a:b]) for a, b in zip((0, *ends[:-1]), ends, strict=True)]


def scikit_learn(train: Labelled, validation: Labelled, test: Labelled) -> float:
    """Test accuracy of what LogisticRegressionCV finds, which chooses by the same validation samples."""
    scaler = StandardScaler().fit(train.h)
    fold = np.repeat([-1, 0], [len(train), len(validation)])
    model = LogisticRegressionCV(
        Cs=1 / (len(train) * GRID.numpy().astype(np.float64)), cv=PredefinedSplit(fold), refit=False, max_iter=3000,
        l1_ratios=(0,), use_legacy_attributes=False, scoring="accuracy",
    )  # fmt: skip
    model.fit(scaler.transform(np.vstack([train.h, validation.h])), np.concatenate([train.labels, validation.labels]))
    return float(model.score(scaler.transform(test.h), test.labels))


def test_agrees_with_logistic_regression_of_scikit_learn() -> None:
    train, validation, test = representations(500, 64)
    found = probe(train, validation, 10).measure({"test": test})["test"]
    assert found["linear_accuracy"] == pytest.approx(scikit_learn(train, validation, test), abs=0.003)


@pytest.mark.long
@pytest.mark.parametrize(("num_train", "dim"), [(500, 512), (500, 2048), (5000, 64), (5000, 512), (50_000, 64)])
def test_agrees_with_scikit_learn_on_larger_ones(num_train: int, dim: int) -> None:
    # So many that they tell neighbouring strengths apart: by 1,500, several lie within one image of the best.
    train, validation, test = representations(num_train, dim, num_validation=15_000)
    found = probe(train, validation, 10).measure({"test": test})["test"]
    assert found["linear_accuracy"] == pytest.approx(scikit_learn(train, validation, test), abs=0.003)


def digits(*, num_validation: int) -> list[Labelled]:
    x, y = load_digits(return_X_y=True)
    h = x.astype(np.float32)
    ends = (600, 600 + num_validation, 600 + num_validation + 400)
    return [Labelled(h[a:b], y[a:b]) for a, b in zip((0, *ends[:-1]), ends, strict=True)]


def test_without_validation_samples_the_strength_is_chosen_among_the_training_samples() -> None:
    train, _, test = digits(num_validation=400)
    found = probe(train, None, 10).measure({"test": test})["test"]
    assert found["linear_accuracy"] > 0.93


def test_budgets_of_labels_are_measured_in_one_pass() -> None:
    train, validation, test = digits(num_validation=400)
    found = probe(train, validation, 10).measure({"test": test}, budgets=(5, None, 1), num_draws=3)["test"]
    one, five, most = (
        found[name]
        for name in ("linear_accuracy_1_per_class", "linear_accuracy_5_per_class", "linear_accuracy")
    )  # fmt: skip
    assert one + 0.1 < five < most - 0.05
    assert 0 < found["linear_accuracy_5_per_class_spread"] < found["linear_accuracy_1_per_class_spread"] < 0.1
    alone = probe(train, validation, 10).measure({"test": test}, budgets=(5,), num_draws=3)["test"]
    assert alone["linear_accuracy"] == pytest.approx(five)
    single = probe(train, validation, 10).measure({"test": test}, budgets=(5,), num_draws=1)["test"]
    assert "linear_accuracy_5_per_class_spread" not in single


def test_the_budget_limits_the_labels_and_not_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the labels drawn are looked at: those of the others may be anything."""
    train, validation, _ = digits(num_validation=400)
    chosen = choose_labelled(train.labels, 3, seed=0)
    monkeypatch.setattr(linear_probe, "choose_labelled", lambda *_: chosen)
    wrong = np.zeros_like(train.labels)
    wrong[chosen] = train.labels[chosen]
    (found,), (expected,) = (
        probe(Labelled(train.h, labels), validation, 10)._solve(3, [0]) for labels in (wrong, train.labels)
    )
    torch.testing.assert_close(found, expected)


def test_noise_cannot_be_told_apart() -> None:
    rng = np.random.default_rng(0)
    h, labels = rng.normal(size=(900, 4)).astype(np.float32), rng.integers(0, 4, 900)
    train, validation, test = (Labelled(h[part], labels[part]) for part in np.split(np.arange(900), 3))
    found = probe(train, validation, 4).measure({"test": test})["test"]
    assert 0.1 < found["linear_accuracy"] < 0.4


def test_few_labels_take_as_many_of_each_class() -> None:
    labels = np.repeat(np.arange(4), [50, 50, 50, 2])
    chosen = choose_labelled(labels, 5, seed=0)
    assert np.bincount(labels[chosen]).tolist() == [5, 5, 5, 2]
    assert len(set(chosen)) == len(chosen)
    assert len(choose_labelled(labels, None, seed=0)) == len(labels)
    flags = np.eye(3, dtype=np.int64)[np.repeat(np.arange(3), 20)]
    assert flags[choose_labelled(flags, 4, seed=0)].sum(0).tolist() == [4, 4, 4]


def test_neither_offset_nor_scale_of_a_dimension_changes_what_is_right() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 600)
    h = np.eye(3)[labels] + 0.3 * rng.normal(size=(600, 3))
    accuracies = []
    for scale, offset in ((1.0, 0.0), (np.array([1e-3, 1.0, 1e3]), 50.0)):
        moved = np.hstack([h * scale + offset, np.full((600, 1), 0.1)]).astype(np.float32)
        train, validation, test = (Labelled(moved[part], labels[part]) for part in np.split(np.arange(600), 3))
        accuracies.append(probe(train, validation, 3).measure({"test": test})["test"]["linear_accuracy"])
    assert accuracies[0] > 0.8
    assert accuracies[1] == pytest.approx(accuracies[0], abs=0.02)


def test_several_labels_a_sample_have_a_mean_average_precision() -> None:
    train, validation, test = digits(num_validation=400)
    parts = [
        Labelled(each.h, np.stack([each.labels % 2, each.labels > 4], axis=1)) for each in (train, validation, test)
    ]
    parts[0].labels[::3, 0] = -1
    found = probe(parts[0], parts[1], 0).measure({"test": parts[2]}, budgets=(5, None), num_draws=2)["test"]
    assert 0.6 < found["linear_mean_average_precision_5_per_class"] < found["linear_mean_average_precision"]
    assert found["linear_mean_average_precision"] > 0.9


def test_labels_that_no_training_sample_has_are_no_error() -> None:
    train, validation, test = digits(num_validation=400)
    flags = [Labelled(each.h, (each.labels[:, None] == np.arange(2)).astype(np.int64)) for each in (validation, test)]
    none = Labelled(train.h, np.zeros((len(train), 2), np.int64))
    found = probe(none, flags[0], 0).measure({"test": flags[1]}, budgets=(5, None), num_draws=2)["test"]
    assert found["linear_mean_average_precision"] < 0.5


def test_draws_that_are_too_large_to_be_solved_together_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation, test = digits(num_validation=400)
    measure = partial(probe(train, validation, 10).measure, {"test": test}, budgets=(3,), num_draws=3)
    together = measure()["test"]
    monkeypatch.setattr(linear_probe, "MOST_TOGETHER", 1)
    assert measure()["test"] == pytest.approx(together, abs=0.002)


def test_a_class_that_only_the_test_samples_have_is_no_error() -> None:
    train, validation, test = digits(num_validation=400)
    few = Labelled(train.h[train.labels < 2], train.labels[train.labels < 2])
    found = probe(few, validation, 10).measure({"test": test})["test"]
    assert found["linear_accuracy"] < 0.3


@pytest.mark.parametrize("seed", range(12))
def test_noise_among_strong_penalties_does_not_end_the_search(seed: int) -> None:
    """Few validation samples, and a rare signal that only weak penalties let through."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, 460)
    h = (rng.normal(size=(10, 40))[labels] * 0.35 + rng.normal(size=(460, 40))) * np.geomspace(1, 0.1, 40)
    train, validation = (Labelled(h[part].astype(np.float32), labels[part]) for part in np.split(np.arange(460), [400]))
    whole = probe(train, validation, 10)
    x, labels = whole._on_device(train)
    (every,) = minimize(x[None], whole._targets(labels[None]), GRID)
    best = max(score for score, _ in whole._scores(every))
    found = whole.measure({"validation": validation})["validation"]["linear_accuracy"]
    assert found == pytest.approx(best, abs=1.5 / 60)
