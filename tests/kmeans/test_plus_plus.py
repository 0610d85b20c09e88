import itertools

import numpy as np
import pytest
from scipy import stats

from clray.kmeans.plus_plus import spread_rows


def law(points: np.ndarray, weights: np.ndarray, num_clusters: int) -> dict[tuple[int, ...], float]:
    """Probability of each set of rows, by single draws in every order."""
    found: dict[tuple[int, ...], float] = {}
    squares = ((points[:, None] - points[None]) ** 2).sum(-1)
    for order in itertools.permutations(range(len(points)), num_clusters):
        probability = weights[order[0]] / weights.sum()
        for count in range(1, num_clusters):
            mass = weights * squares[:, order[:count]].min(axis=1)
            probability *= mass[order[count]] / mass.sum()
        rows = tuple(sorted(order))
        found[rows] = found.get(rows, 0.0) + probability
    return found


def test_batches_follow_the_law_of_single_draws() -> None:
    generator = np.random.default_rng(0)
    points = generator.normal(size=(5, 2)).astype(np.float32)
    weights = np.array([1.0, 4, 2, 1, 3])
    expected = law(points.astype(np.float64), weights, 4)
    runs = 300
    seen = dict.fromkeys(expected, 0)
    for _ in range(runs):
        seen[tuple(sorted(spread_rows(points, weights, 4, generator).tolist()))] += 1
    chance = stats.chisquare([seen[rows] for rows in expected], [runs * p for p in expected.values()]).pvalue
    assert chance > 1e-3


def test_points_without_weight_or_equal_to_others_come_last() -> None:
    points = np.repeat(np.eye(3, dtype=np.float32), [5, 1, 4], axis=0)
    weights = np.array([1.0] * 5 + [0] + [1.0] * 4)
    rows = spread_rows(points, weights, 6, np.random.default_rng(0))
    assert len(np.unique(rows)) == 6
    assert {tuple(each) for each in points[rows[:2]]} == {(1, 0, 0), (0, 0, 1)}


@pytest.mark.parametrize("num_clusters", [1, 40])
def test_all_points_or_one_can_be_asked_for(num_clusters: int) -> None:
    points = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    rows = spread_rows(points, np.ones(40), num_clusters, np.random.default_rng(1))
    assert len(np.unique(rows)) == num_clusters
