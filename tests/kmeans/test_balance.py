import numpy as np
import pytest

from clray.kmeans.balance import balance
from clray.kmeans.lloyd import Clustering, lloyd
from clray.kmeans.options import KMeansOptions
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import LocalShards
from clray.kmeans.vectors.source import split_rows

RNG = np.random.default_rng(0)
VECTORS = (RNG.normal(size=(4000, 6)) * RNG.exponential(size=(4000, 1))).astype(np.float32)


def shards(num_shards: int) -> LocalShards:
    return LocalShards([FaissShard(VECTORS[a:b]) for a, b in split_rows(len(VECTORS), num_shards)])


@pytest.fixture(scope="module")
def uneven() -> Clustering:
    return lloyd(shards(1), [20], KMeansOptions(init="kmeans++"))[0]


def imbalance(clustering: Clustering) -> float:
    return 20 * float((clustering.sizes.astype(float) ** 2).sum()) / len(VECTORS) ** 2


def test_sizes_become_more_even_at_some_cost_in_inertia(uneven: Clustering) -> None:
    even = balance(shards(2), uneven)
    assert imbalance(even) < 1 + 0.5 * (imbalance(uneven) - 1)
    expected = ((VECTORS.astype(np.float64) - even.centroids[even.ids]) ** 2).sum()
    assert even.inertia == pytest.approx(expected, rel=1e-4)
    assert uneven.inertia < even.inertia < 2 * uneven.inertia


def test_scaling_the_vectors_changes_nothing(uneven: Clustering) -> None:
    scaled = Clustering(uneven.centroids * 64, uneven.ids, uneven.inertia * 64**2)
    even = balance(LocalShards([FaissShard(VECTORS * 64)]), scaled)
    np.testing.assert_array_equal(even.ids, balance(shards(1), uneven).ids)
