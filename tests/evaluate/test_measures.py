"""Figures of predictions against scikit-learn's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, top_k_accuracy_score

from clray.evaluate.measures import class_measures, flag_measures


def test_accuracy_balanced_and_among_the_first_five() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(12), np.arange(1, 13)))
    scores = rng.normal(size=(len(labels), 12)) + 2 * np.eye(12)[labels]
    found = class_measures(torch.from_numpy(scores), torch.from_numpy(labels))
    assert found["accuracy"] == pytest.approx(np.mean(scores.argmax(1) == labels))
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, scores.argmax(1)))
    assert found["top5_accuracy"] == pytest.approx(top_k_accuracy_score(labels, scores, k=5))
    assert found["accuracy"] < found["top5_accuracy"] < 1


def test_few_classes_have_no_first_five_and_an_absent_class_does_not_count() -> None:
    found = class_measures(torch.eye(10)[:3], torch.tensor([0, 1, 1]))
    assert found == {"accuracy": pytest.approx(2 / 3), "balanced_accuracy": pytest.approx(0.75)}


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 1])), min_size=2, max_size=40))
def test_average_precision_with_ties_is_that_of_scikit_learn(pairs: list[tuple[int, int]]) -> None:
    scores, labels = (np.array(values) for values in zip(*pairs, strict=True))
    found = flag_measures(torch.from_numpy(scores)[:, None].float(), torch.from_numpy(labels)[:, None])
    if labels.sum() == 0:
        assert found == {}
    else:
        assert found["mean_average_precision"] == pytest.approx(average_precision_score(labels, scores))


def test_unknown_labels_and_labels_that_nobody_has_are_left_out() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.5], [0.8, 0.2, 0.5], [0.1, 0.3, 0.5]])
    labels = torch.tensor([[-1, 0, 0], [0, 0, 0], [1, 1, 0]])
    assert flag_measures(scores, labels)["mean_average_precision"] == pytest.approx((0.5 + 1) / 2)
