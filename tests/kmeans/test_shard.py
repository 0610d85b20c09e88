import numpy as np
import pytest

from clray.kmeans.shard import FaissShard
from clray.kmeans.vectors import NpySlice


def test_partial_sums_equal_a_brute_force_in_float64() -> None:
    rng = np.random.default_rng(0)
    vectors, centroids = rng.normal(size=(300, 5)).astype(np.float32), rng.normal(size=(9, 5)).astype(np.float32)
    found = FaissShard(vectors).accumulate(centroids)
    distances = ((vectors[:, None].astype(np.float64) - centroids[None]) ** 2).sum(-1)
    nearest = distances.argmin(1)
    for cluster in range(9):
        np.testing.assert_allclose(found.sums[cluster], vectors[nearest == cluster].sum(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found.counts, np.bincount(nearest, minlength=9))
    assert found.inertia == pytest.approx(distances.min(1).sum(), rel=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_mapped_slice_equals_the_array(tmp_path, dtype: type) -> None:
    vectors = np.random.default_rng(1).normal(size=(50, 4)).astype(dtype)
    np.save(tmp_path / "v.npy", vectors)
    centroids = vectors[:3].astype(np.float32)
    mapped = FaissShard(NpySlice(str(tmp_path / "v.npy"), 10, 40)).accumulate(centroids)
    np.testing.assert_allclose(mapped.sums, FaissShard(vectors[10:40]).accumulate(centroids).sums)


def test_read_only_vectors_are_taken_as_they_are() -> None:
    """Arrays from Ray's object store are read-only."""
    vectors = np.random.default_rng(2).normal(size=(20, 4)).astype(np.float32)
    vectors.flags.writeable = False
    ids, _ = FaissShard(vectors).assign(vectors[:2])
    assert ids[:2].tolist() == [0, 1]
