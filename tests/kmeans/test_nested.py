import numpy as np
import pytest

from clray.clusters.statistics import cluster_statistics
from clray.kmeans.engine import cluster
from clray.kmeans.lloyd import Clustering, Level, lloyd
from clray.kmeans.nested import coarsen, coarser_ids
from clray.kmeans.options import KMeansOptions
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import LocalShards

RNG = np.random.default_rng(0)
COARSE_CENTERS = RNG.normal(size=(4, 8)) * 20
FINE_CENTERS = COARSE_CENTERS[np.arange(24) % 4] + RNG.normal(size=(24, 8)) * 3
TRUE_FINE = RNG.integers(24, size=4000)
VECTORS = (FINE_CENTERS[TRUE_FINE] + RNG.normal(size=(4000, 8)) * 0.1).astype(np.float32)


def above(fine: Clustering, options: KMeansOptions) -> Clustering:
    (level,), parents = coarsen(Level(fine.centroids, fine.sizes, fine.inertia), (4,), options)
    (ids,) = coarser_ids(fine.ids, parents)
    np.testing.assert_array_equal(level.sizes, np.bincount(ids, minlength=4))
    return level.with_ids(ids)


def test_levels_are_nested_and_find_what_the_data_hold() -> None:
    result = cluster(VECTORS, [24, 4], nested=True, use_ray=False, init="kmeans++", num_redos=3)
    fine, coarse = result.clusterings
    np.testing.assert_array_equal(coarse.ids, result.parents[0][fine.ids])
    assert cluster_statistics(coarse.ids.astype(np.int64), TRUE_FINE % 4).nmi == pytest.approx(1.0)


def test_inertia_of_a_coarser_level_is_that_of_the_vectors() -> None:
    options = KMeansOptions(num_iterations=100, tolerance=0.0)
    (fine,) = lloyd(LocalShards([FaissShard(VECTORS)]), [24], options)
    coarse = above(fine, options)
    expected = ((VECTORS.astype(np.float64) - coarse.centroids[coarse.ids]) ** 2).sum()
    assert coarse.inertia == pytest.approx(expected, rel=1e-3)


def test_centroids_weigh_as_much_as_their_clusters() -> None:
    options = KMeansOptions(num_iterations=100, tolerance=0.0)
    (fine,) = lloyd(LocalShards([FaissShard(VECTORS)]), [24], options)
    coarse = above(fine, options)
    means = np.stack([VECTORS[coarse.ids == k].mean(0) for k in range(4)])
    np.testing.assert_allclose(coarse.centroids, means, rtol=1e-3, atol=1e-3)
