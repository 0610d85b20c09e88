import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clray.clusters import confidence
from clray.clusters.confidence import margins, most_confident, with_loners

CPU = torch.device("cpu")


@pytest.mark.parametrize("block", [1, 40, 2**20])
def test_a_margin_is_the_simplified_silhouette_under_the_own_cluster(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(confidence, "BLOCK_ELEMENTS", block)
    generator = np.random.default_rng(0)
    vectors, centroids = (generator.normal(size=(n, 5)).astype(np.float32) for n in (50, 7))
    ids = generator.integers(7, size=50).astype(np.int32)  # for many another centroid is nearer
    expected = []
    for vector, own in zip(vectors.astype(float), ids, strict=True):
        distances = [float(np.linalg.norm(vector - each)) for each in centroids.astype(float)]
        a, b = distances[own], min(distance for k, distance in enumerate(distances) if k != own)
        expected.append((b - a) / max(a, b))
    found = margins(vectors, centroids, ids, CPU)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found < 0).any()


def test_equal_centroids_and_no_vectors_have_margins() -> None:
    vectors, centroids = np.ones((3, 2), np.float32), np.ones((2, 2), np.float32)
    assert margins(vectors, centroids, np.zeros(3, np.int32), CPU).tolist() == [0, 0, 0]
    assert margins(vectors[:0], centroids, np.zeros(0, np.int32), CPU).shape == (0,)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(1, 9), st.floats(0, 1), st.integers(0, 10_000))
def test_of_each_cluster_its_share_of_highest_score_counts(num: int, k: int, share: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    ids, scores = generator.integers(k, size=num), generator.integers(4, size=num).astype(np.float32)
    counts = most_confident(ids, scores, share)
    for cluster in range(k):
        members = np.flatnonzero(ids == cluster)
        ranked = sorted(members, key=lambda i: (-scores[i], i))
        wanted = int(np.floor(share * len(members) + 0.5))
        assert set(np.flatnonzero(counts & (ids == cluster))) == set(ranked[:wanted])
    if share in (0, 1):
        assert counts.all() if share == 1 else not counts.any()


def test_one_that_does_not_count_is_a_cluster_of_its_own() -> None:
    found = with_loners(np.array([0, 1, 1, 0]), 5, np.array([True, False, True, False]))
    assert (found.tolist(), found.dtype) == ([0, 6, 1, 8], np.int32)
