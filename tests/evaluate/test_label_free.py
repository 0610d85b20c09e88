"""Measures without labels, against formulas written out and other libraries."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.metrics import silhouette_samples

from clray.evaluate.label_free import (
    alignment,
    confident_fraction,
    label_free_measures,
    rankme,
    silhouette,
    uniformity,
)

RNG = np.random.default_rng(0)
H = RNG.normal(size=(300, 16)).astype(np.float32) * np.geomspace(1, 0.01, 16).astype(np.float32)
UNIT = H / np.linalg.norm(H, axis=1, keepdims=True)


def test_the_effective_rank_is_that_of_the_singular_values() -> None:
    centred = H.astype(np.float64) - H.mean(0)
    values = np.sqrt(np.linalg.eigvalsh(centred.T @ centred).clip(min=0))
    shares = values / values.sum()
    expected = np.exp(-(shares * np.log(shares)).sum())
    assert rankme(torch.from_numpy(H)) == pytest.approx(expected, rel=1e-3)
    assert rankme(torch.from_numpy(H + 50)) == pytest.approx(expected, rel=1e-2), "the mean does not count"
    assert rankme(torch.cat([torch.eye(8), -torch.eye(8)])) == pytest.approx(8, rel=1e-4)
    assert rankme(torch.arange(50.0)[:, None] * torch.ones(8)) == pytest.approx(1, rel=1e-3)


def test_alignment_and_uniformity_are_those_of_the_formulas() -> None:
    a, b = UNIT[:150], UNIT[150:]
    expected = np.mean([np.linalg.norm(x - y) ** 2 for x, y in zip(a, b, strict=True)])
    assert alignment(torch.from_numpy(a), torch.from_numpy(b)) == pytest.approx(expected, rel=1e-5)
    assert uniformity(torch.from_numpy(UNIT)) == pytest.approx(
        np.log(np.mean(np.exp(-2 * pdist(UNIT.astype(np.float64)) ** 2))), rel=1e-4
    )
    assert alignment(torch.from_numpy(a), torch.from_numpy(-a)) == pytest.approx(4)


def test_the_silhouette_is_that_of_scikit_learn_and_0_where_there_is_none() -> None:
    ids = RNG.integers(0, 5, 300)
    assert silhouette(UNIT, ids) == pytest.approx(silhouette_samples(UNIT, ids).mean(), abs=1e-5)
    assert silhouette(UNIT, np.zeros(300, np.int64)) == silhouette(UNIT, np.arange(300)) == 0


def test_a_member_between_two_centroids_is_not_confident() -> None:
    centroids = np.array([[0.0, 0], [1, 0]], np.float32)
    h = np.array([[0.1, 0], [0.48, 0], [0.9, 0], [0.5, 3]], np.float32)
    assert confident_fraction(h, centroids) == 0.5


def blobs(spread: float) -> np.ndarray:
    centers = 3 * np.eye(20, 32)[np.repeat(np.arange(20), 20)]
    return (centers + spread * np.random.default_rng(1).normal(size=centers.shape)).astype(np.float32)


def test_clusters_that_are_there_are_firm_and_those_of_noise_are_not() -> None:
    firm, noise = (label_free_measures(h, h, (h, h + 0.1), seed=0) for h in (blobs(0.1), blobs(100.0)))
    for name in ("silhouette", "stability", "confident_fraction"):
        assert firm[name] > noise[name] + 0.2
    assert noise["stability"] < 0.3
    assert label_free_measures(blobs(0.1), blobs(0.1), (blobs(0.1),) * 2, seed=0) == firm | {"alignment": 0}


@pytest.mark.parametrize("h", [np.ones((100, 4), np.float32), np.zeros((100, 4), np.float32), H[:5], H[:1]])
def test_what_has_collapsed_or_is_too_few_is_measured_all_the_same(h: np.ndarray) -> None:
    found = label_free_measures(h, h, (h, h), seed=0)
    assert all(np.isfinite(value) for value in found.values())
    assert ("silhouette" in found) == (len(h) >= 20)
