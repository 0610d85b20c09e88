"""Logistic regression against scikit-learn's."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

from clray.evaluate import logistic
from clray.evaluate.logistic import Classes, Flags, mean_loss, minimize, with_ones

RNG = np.random.default_rng(0)
NUM_SAMPLES, DIM = 240, 12
X = RNG.normal(size=(NUM_SAMPLES, DIM)) * np.geomspace(1, 0.1, DIM)
LABELS = (X @ RNG.normal(size=(DIM, 3)) + RNG.gumbel(size=(NUM_SAMPLES, 3))).argmax(1)
L2 = torch.tensor([1.0, 0.1, 0.01, 1e-3])
INPUT = with_ones(torch.from_numpy(X).float())[None]
"""One problem."""


def classes(labels: np.ndarray) -> Classes:
    return Classes(torch.from_numpy(labels)[None], 3)


def reference(labels: np.ndarray, l2: float) -> np.ndarray:
    """Weights and intercepts by scikit-learn, [dim + 1, outputs]."""
    model = LogisticRegression(C=1 / (len(labels) * l2), tol=1e-8, max_iter=10_000).fit(X, labels)
    return np.vstack([model.coef_.T, model.intercept_])


def test_the_weights_of_every_strength_are_those_of_scikit_learn() -> None:
    (weights,) = minimize(INPUT, classes(LABELS), L2)
    for l2, found in zip(L2.tolist(), weights.numpy(), strict=True):
        expected = reference(LABELS, l2)
        # A constant added to all intercepts changes nothing.
        expected[-1] -= expected[-1].mean() - found[-1].mean()
        np.testing.assert_allclose(found, expected, atol=3e-3)


def test_several_labels_a_sample_are_as_many_binary_regressions() -> None:
    flags = np.stack([LABELS == 0, LABELS == 1], axis=1).astype(np.int64)
    (weights,) = minimize(INPUT, Flags(torch.from_numpy(flags)[None]), L2[:3])
    for l2, found in zip(L2.tolist(), weights.numpy(), strict=False):
        expected = np.hstack([reference(column, l2) for column in flags.T])
        np.testing.assert_allclose(found, expected, atol=3e-3)


def test_unknown_labels_count_for_nothing() -> None:
    flags = torch.from_numpy(np.stack([LABELS == 0, LABELS == 1], axis=1).astype(np.int64))[None]
    half = flags.clone()
    half[:, ::2, 1] = -1
    twice = flags[:, 1::2].repeat(1, 2, 1)
    other = minimize(INPUT[:, 1::2].repeat(1, 2, 1), Flags(twice), L2[:2] * 2)[..., 1]
    torch.testing.assert_close(minimize(INPUT, Flags(half), L2[:2])[..., 1], other, atol=3e-3, rtol=0)


def test_pieces_of_the_rows_give_what_all_at_once_give(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = classes(LABELS)
    whole = minimize(INPUT, targets, L2)
    monkeypatch.setattr(logistic, "MAX_LOGITS", 3 * len(L2) * 50)
    torch.testing.assert_close(minimize(INPUT, targets, L2), whole, atol=2e-3, rtol=0)


def test_a_good_start_is_kept() -> None:
    targets = classes(LABELS)
    found = minimize(INPUT, targets, L2)
    again = minimize(INPUT, targets, L2, found)
    torch.testing.assert_close(again, found, atol=2e-3, rtol=0)


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [0, 1, 2, 0]])
def test_what_can_be_told_apart_perfectly_or_not_at_all_ends(labels: list[int]) -> None:
    """Without a penalty worth the name the weights would grow for ever."""
    x = with_ones(torch.tensor([[1.0, 0], [0, 1], [-1, -1], [1, 0]]))[None]
    targets = Classes(torch.tensor(labels)[None], 3)
    weights = minimize(x, targets, torch.tensor([1e-6]))
    assert weights.isfinite().all()
    assert mean_loss(x, targets, weights).item() < 1e-3


def problems_of_unlike_difficulty() -> tuple[torch.Tensor, torch.Tensor]:
    """Samples of four problems, float64, and their labels: noise ends at once, what is told apart takes long."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 60, 8))
    signal = (x @ rng.normal(size=(4, 8, 3))) * np.array([0.0, 0.3, 3.0, 30.0])[:, None, None]
    return with_ones(torch.from_numpy(x)), torch.from_numpy((signal + rng.gumbel(size=signal.shape)).argmax(2))


@pytest.mark.parametrize("kind", ["classes", "flags"])
def test_problems_that_are_solved_together_end_where_each_ends_alone(kind: str) -> None:
    """To rounding: whoever has converged stays where it is, and the others keep their labels and what they remember."""
    x, labels = problems_of_unlike_difficulty()
    targets = Classes(labels, 3) if kind == "classes" else Flags(F.one_hot(labels, 3))
    l2 = torch.tensor([1.0, 1e-2, 1e-4], dtype=torch.float64)
    together = minimize(x, targets, l2)
    for number in range(len(x)):
        for place in range(len(l2)):
            alone = minimize(x[[number]], targets.of([number]), l2[[place]])[0, 0]
            torch.testing.assert_close(together[number, place], alone, rtol=1e-6, atol=1e-6)


def test_rows_that_fill_up_a_smaller_problem_count_for_nothing() -> None:
    x, labels = problems_of_unlike_difficulty()
    flags = F.one_hot(labels, 3)
    x[1, 40:], flags[1, 40:] = 0, -1
    l2 = L2[1:3].double()
    together = minimize(x, Flags(flags), l2)[1]
    torch.testing.assert_close(together, minimize(x[1:2, :40], Flags(flags[1:2, :40]), l2)[0], rtol=1e-6, atol=1e-6)
