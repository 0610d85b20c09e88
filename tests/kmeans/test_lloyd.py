import itertools

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from clray.errors import UserError
from clray.kmeans.lloyd import Clustering, Descent, lloyd
from clray.kmeans.options import KMeansOptions
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.port import PartialSums
from clray.kmeans.shards.together import LocalShards, rows_by_slice
from clray.kmeans.starts import start_centroids
from clray.kmeans.update import update_centroids
from clray.kmeans.vectors.source import split_rows


def blobs(num_vectors: int = 3000, dim: int = 16, num_blobs: int = 20) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(num_blobs, dim)) * 2
    return (centers[rng.integers(num_blobs, size=num_vectors)] + rng.normal(size=(num_vectors, dim))).astype(np.float32)


def shards_of(vectors: np.ndarray, num_shards: int) -> LocalShards:
    return LocalShards([FaissShard(vectors[start:stop]) for start, stop in split_rows(len(vectors), num_shards)])


def cluster(shards: LocalShards, num_clusters: int, initial: np.ndarray | None = None, **options: object) -> Clustering:
    given_centroids = None if initial is None else [initial]
    (result,) = lloyd(shards, [num_clusters], KMeansOptions(**options), initial=given_centroids)
    return result


def test_one_shard_and_three_agree_from_the_same_centroids() -> None:
    vectors = blobs()
    results = [cluster(shards_of(vectors, n), 30, vectors[:30], num_iterations=10) for n in (1, 3)]
    np.testing.assert_array_equal(results[0].ids, results[1].ids)
    np.testing.assert_allclose(results[0].centroids, results[1].centroids, rtol=1e-5, atol=1e-5)
    assert results[0].inertia == pytest.approx(results[1].inertia, rel=1e-6)


@pytest.mark.parametrize("init", ["random", "kmeans++", "afk-mc2"])
def test_the_start_is_the_same_for_any_number_of_shards(init: str) -> None:
    vectors = blobs()
    one, three = (start_centroids(shards_of(vectors, n), 30, KMeansOptions(seed=5, init=init), 0) for n in (1, 3))
    np.testing.assert_array_equal(one, three)
    assert len(np.unique(one, axis=0)) == 30


def test_kmeans_plus_plus_starts_lower_than_random_vectors() -> None:
    vectors = blobs(num_blobs=40)
    first = [
        np.mean([cluster(shards_of(vectors, 2), 40, init=init, seed=seed).history[0] for seed in range(5)])
        for init in ("kmeans++", "random")
    ]
    assert first[0] < first[1]


def test_iterates_like_scikit_learn() -> None:
    vectors = blobs()
    ours = cluster(shards_of(vectors, 2), 20, vectors[:20], num_iterations=8, tolerance=0.0)
    reference = KMeans(20, init=vectors[:20], n_init=1, max_iter=8, tol=0, algorithm="lloyd").fit(vectors)
    assert ours.inertia == pytest.approx(reference.inertia_, rel=1e-4)
    assert np.mean(ours.ids == reference.labels_) > 0.999


def test_inertia_is_no_worse_than_that_of_faiss_kmeans() -> None:
    vectors, num_clusters = blobs(), 40
    kmeans = faiss.Kmeans(vectors.shape[1], num_clusters, niter=20, nredo=3, seed=1, max_points_per_centroid=10**6)
    kmeans.train(vectors)
    reference = kmeans.index.search(vectors, 1)[0].sum(dtype=np.float64)
    ours = cluster(shards_of(vectors, 3), num_clusters, num_iterations=20, num_redos=3, seed=1)
    assert ours.inertia <= 1.02 * reference


def test_the_best_of_several_starts_is_kept() -> None:
    ends: dict[int, float] = {}

    def keep(_shards: object, descents: list[Descent], _: list[PartialSums]) -> None:
        ends.update({descent.redo: descent.history[-1] for descent in descents})

    kept_first = 0
    for seed in range(3):
        options = KMeansOptions(num_redos=4, num_iterations=5, seed=seed)
        (result,) = lloyd(shards_of(blobs(500), 2), [15], options, on_iteration=keep)
        assert result.history[-1] == pytest.approx(min(ends.values()), rel=1e-8)
        kept_first += ends[0] == min(ends.values())
    assert kept_first < 3


def test_inertia_and_ids_belong_to_the_centroids_returned() -> None:
    vectors = blobs(500)
    result = cluster(shards_of(vectors, 2), 12, num_iterations=3)
    distances = ((vectors[:, None].astype(np.float64) - result.centroids[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(result.ids, distances.argmin(1))
    assert result.inertia == pytest.approx(distances.min(1).sum(), rel=1e-5)


def test_inertia_never_rises_where_no_cluster_is_empty() -> None:
    history = cluster(shards_of(blobs(), 2), 10, num_iterations=15, tolerance=0.0).history
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in itertools.pairwise(history))


def test_granularities_together_equal_each_alone() -> None:
    vectors = blobs()
    together = lloyd(shards_of(vectors, 2), [5, 40, 12], KMeansOptions(num_redos=2, seed=3))
    for k, found in zip((5, 40, 12), together, strict=True):
        alone = cluster(shards_of(vectors, 2), k, num_redos=2, seed=3)
        np.testing.assert_array_equal(found.centroids, alone.centroids)
        np.testing.assert_array_equal(found.ids, alone.ids)


def test_one_pass_serves_every_granularity_and_every_start() -> None:
    class Counting(LocalShards):
        num_passes = 0

        def accumulate(self, centroids: list) -> list:
            self.num_passes += 1
            return super().accumulate(centroids)

    vectors = blobs()
    shards = Counting([FaissShard(vectors)])
    lloyd(shards, [5, 40], KMeansOptions(num_redos=3, num_iterations=6, tolerance=0.0))
    assert shards.num_passes <= 6


def test_going_on_from_a_state_equals_going_through() -> None:
    vectors, options = blobs(), KMeansOptions(num_iterations=9, num_redos=2, tolerance=0.0)
    through = lloyd(shards_of(vectors, 2), [7, 90], options)
    states: list[list[Descent]] = []

    def keep(_shards: object, descents: list[Descent], _: list[PartialSums]) -> None:
        states.append([Descent(d.redo, d.centroids.copy(), list(d.history), d.is_done) for d in descents])

    lloyd(shards_of(vectors, 2), [7, 90], options, on_iteration=keep)
    again = lloyd(shards_of(vectors, 2), [7, 90], options, descents=states[3])
    for one, other in zip(through, again, strict=True):
        np.testing.assert_array_equal(one.centroids, other.centroids)
        assert one.history == other.history


def test_stops_when_no_vector_changes_its_cluster() -> None:
    vectors = blobs(400)
    settled = cluster(shards_of(vectors, 2), 5, num_iterations=200, tolerance=0.0)
    assert settled.num_iterations < 200
    again = cluster(shards_of(vectors, 2), 5, settled.centroids, num_iterations=200, tolerance=0.0)
    assert again.num_iterations <= 2
    np.testing.assert_array_equal(again.ids, settled.ids)


def test_a_warm_start_keeps_the_ids() -> None:
    vectors = blobs()
    cold = cluster(shards_of(vectors, 2), 20, init="kmeans++")
    moved = vectors + 0.05 * np.random.default_rng(1).normal(size=vectors.shape).astype(np.float32)
    warm = cluster(shards_of(moved, 2), 20, cold.centroids, num_iterations=5)
    assert np.mean(warm.ids == cold.ids) > 0.95


def test_as_many_clusters_as_vectors_reach_zero() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    result = cluster(shards_of(vectors, 3), 20)
    assert result.inertia == pytest.approx(0, abs=1e-4)
    assert len(np.unique(result.ids)) == 20


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_duplicates_and_constant_data_end_well(num_vectors: int, dim: int, num_distinct: int, num_shards: int) -> None:
    rng = np.random.default_rng(num_vectors)
    distinct = rng.normal(size=(num_distinct, dim)).astype(np.float32)
    vectors = distinct[rng.integers(num_distinct, size=num_vectors)]
    num_clusters = max(1, num_vectors // 2)
    result = cluster(shards_of(vectors, num_shards + 1), num_clusters)
    assert np.isfinite(result.centroids).all()
    assert result.ids.min() >= 0
    assert result.ids.max() < num_clusters


def test_an_empty_cluster_takes_half_of_a_large_one() -> None:
    sums = PartialSums(np.array([[40.0, 40.0], [0.0, 0.0]]), np.array([10.0, 0.0]), 1.0)
    centroids = update_centroids(np.ones((2, 2), np.float32), sums, np.random.default_rng(0), spherical=False)
    np.testing.assert_allclose(centroids.mean(0), [4.0, 4.0])
    assert not np.array_equal(centroids[0], centroids[1])


def test_clusters_emptied_by_a_bad_start_are_filled_again() -> None:
    vectors = blobs()
    initial = np.repeat(vectors[:1], 25, axis=0)
    result = cluster(shards_of(vectors, 2), 25, initial, num_iterations=25)
    assert len(np.unique(result.ids)) == 25


def test_spherical_centroids_have_unit_length() -> None:
    centroids = cluster(shards_of(blobs(), 2), 10, spherical=True, num_iterations=4).centroids
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-5)


def test_spherical_agrees_with_faiss() -> None:
    vectors = blobs()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    kmeans = faiss.Kmeans(16, 12, niter=6, spherical=True, max_points_per_centroid=10**6)
    kmeans.train(vectors, init_centroids=vectors[:12])
    ours = cluster(shards_of(vectors, 2), 12, vectors[:12], spherical=True, num_iterations=6, tolerance=0.0)
    np.testing.assert_allclose(ours.centroids, kmeans.centroids, rtol=1e-3, atol=1e-4)


def test_more_redos_are_never_worse() -> None:
    shards = shards_of(blobs(), 2)
    few, many = (cluster(shards, 30, num_redos=n, seed=3).history[-1] for n in (1, 4))
    assert many <= few


def test_rows_fall_to_the_slice_they_lie_in() -> None:
    parts = rows_by_slice(np.array([0, 2, 3, 9]), np.array([0, 3, 5, 10]))
    assert [part.tolist() for part in parts] == [[0, 2], [0], [4]]


@pytest.mark.parametrize("num_clusters", [0, 21])
def test_refuses_an_impossible_number_of_clusters(num_clusters: int) -> None:
    with pytest.raises(UserError, match=f"between 1 and 20 .* got {num_clusters}"):
        cluster(shards_of(blobs(20), 2), num_clusters)


@pytest.mark.parametrize("nudge", [-1e-13, 1e-13])
def test_rounding_does_not_choose_among_equal_starts(nudge: float) -> None:
    """One shard and three add up in another order: equal starts then differ in their last digits."""
    vectors = blobs(100)
    descents = [Descent(redo, vectors[redo : redo + 5], [7.0 * (1 + redo * nudge)], True) for redo in (0, 1)]
    (found,) = lloyd(shards_of(vectors, 1), [5], descents=descents)
    np.testing.assert_array_equal(found.centroids, vectors[:5])
