import itertools

import faiss
import numpy as np
import pytest
from sklearn.cluster import KMeans

from clray.config import UserError
from clray.kmeans.lloyd import LocalShards, lloyd, update_centroids, write_clustering
from clray.kmeans.shard import FaissShard, PartialSums
from clray.kmeans.vectors import split_rows


def blobs(num_vectors: int = 3000, dim: int = 16, num_blobs: int = 20) -> np.ndarray:
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(num_blobs, dim)) * 2
    return (centers[rng.integers(num_blobs, size=num_vectors)] + rng.normal(size=(num_vectors, dim))).astype(np.float32)


def shards_of(vectors: np.ndarray, num_shards: int) -> LocalShards:
    return LocalShards([FaissShard(vectors[start:stop]) for start, stop in split_rows(len(vectors), num_shards)])


def test_one_shard_and_three_agree_from_the_same_centroids() -> None:
    vectors = blobs()
    results = [lloyd(shards_of(vectors, n), 30, initial=vectors[:30], num_iterations=10) for n in (1, 3)]
    np.testing.assert_array_equal(results[0].ids, results[1].ids)
    np.testing.assert_allclose(results[0].centroids, results[1].centroids, rtol=1e-5, atol=1e-5)
    assert results[0].inertia == pytest.approx(results[1].inertia, rel=1e-6)


def test_random_start_is_the_same_for_any_number_of_shards() -> None:
    vectors = blobs()
    one, three = (lloyd(shards_of(vectors, n), 30, seed=5, num_iterations=5) for n in (1, 3))
    assert one.inertia == pytest.approx(three.inertia, rel=1e-5)


def test_iterates_like_scikit_learn() -> None:
    vectors = blobs()
    ours = lloyd(shards_of(vectors, 2), 20, initial=vectors[:20], num_iterations=8, tolerance=-1.0)
    reference = KMeans(20, init=vectors[:20], n_init=1, max_iter=8, tol=0, algorithm="lloyd").fit(vectors)
    assert ours.inertia == pytest.approx(reference.inertia_, rel=1e-4)
    assert np.mean(ours.ids == reference.labels_) > 0.999


def test_inertia_is_no_worse_than_that_of_faiss_kmeans() -> None:
    vectors, num_clusters = blobs(), 40
    kmeans = faiss.Kmeans(vectors.shape[1], num_clusters, niter=20, nredo=3, seed=1, max_points_per_centroid=10**6)
    kmeans.train(vectors)
    reference = kmeans.index.search(vectors, 1)[0].sum(dtype=np.float64)
    ours = lloyd(shards_of(vectors, 3), num_clusters, num_iterations=20, num_redos=3, seed=1)
    assert ours.inertia <= 1.02 * reference


def test_inertia_and_ids_belong_to_the_centroids_returned() -> None:
    vectors = blobs(500)
    result = lloyd(shards_of(vectors, 2), 12, num_iterations=3)
    distances = ((vectors[:, None].astype(np.float64) - result.centroids[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(result.ids, distances.argmin(1))
    assert result.inertia == pytest.approx(distances.min(1).sum(), rel=1e-5)


def test_inertia_never_rises_where_no_cluster_is_empty() -> None:
    history = lloyd(shards_of(blobs(), 2), 10, num_iterations=15, tolerance=-1.0).history
    assert all(later <= earlier * (1 + 1e-6) for earlier, later in itertools.pairwise(history))


def test_as_many_clusters_as_vectors_reach_zero() -> None:
    vectors = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    result = lloyd(shards_of(vectors, 3), 20)
    assert result.inertia == pytest.approx(0, abs=1e-4)
    assert len(np.unique(result.ids)) == 20


def test_an_empty_cluster_takes_half_of_a_large_one() -> None:
    sums = PartialSums(np.array([[40.0, 40.0], [0.0, 0.0]]), np.array([10, 0]), 1.0)
    centroids = update_centroids(np.ones((2, 2), np.float32), sums, np.random.default_rng(0), spherical=False)
    np.testing.assert_allclose(centroids.mean(0), [4.0, 4.0])
    assert not np.array_equal(centroids[0], centroids[1])


def test_clusters_emptied_by_a_bad_start_are_filled_again() -> None:
    vectors = blobs()
    initial = np.repeat(vectors[:1], 25, axis=0)
    result = lloyd(shards_of(vectors, 2), 25, initial=initial, num_iterations=25)
    assert len(np.unique(result.ids)) == 25


def test_spherical_centroids_have_unit_length() -> None:
    centroids = lloyd(shards_of(blobs(), 2), 10, spherical=True, num_iterations=4).centroids
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, rtol=1e-5)


def test_more_redos_are_never_worse() -> None:
    shards = shards_of(blobs(), 2)
    assert lloyd(shards, 30, num_redos=4, seed=3).inertia <= lloyd(shards, 30, num_redos=1, seed=3).inertia


@pytest.mark.parametrize("num_clusters", [0, 21])
def test_refuses_an_impossible_number_of_clusters(num_clusters: int) -> None:
    with pytest.raises(UserError, match=f"between 1 and 20 .* got {num_clusters}"):
        lloyd(shards_of(blobs(20), 2), num_clusters)


def test_written_clustering_can_be_read_back(tmp_path) -> None:
    result = lloyd(shards_of(blobs(200), 2), 7)
    summary = write_clustering(result, tmp_path / "out", {"seed": 0})
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "assignments.npy"), result.ids)
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "centroids.npy"), result.centroids)
    assert (summary["num_vectors"], summary["num_clusters"]) == (200, 7)
