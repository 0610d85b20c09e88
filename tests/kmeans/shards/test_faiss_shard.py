import os
import subprocess
import sys

import numpy as np
import pytest

from clray.kmeans.memory import BlockPlan
from clray.kmeans.shards.faiss_shard import FaissShard, add_members
from clray.kmeans.vectors.source import open_vectors


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def nearest(vectors: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances = ((vectors[:, None].astype(np.float64) - centroids[None]) ** 2).sum(-1)
    return distances.argmin(1), distances.min(1)


@pytest.mark.parametrize("weighted", [False, True])
def test_partial_sums_equal_a_brute_force_in_float64(weighted: bool) -> None:
    vectors, sets = draw(300, 5), [draw(9, 5, seed=1), draw(400, 5, seed=2)]
    weights = np.random.default_rng(3).uniform(0, 5, size=300) if weighted else np.ones(300)
    found = FaissShard(vectors, weights=weights if weighted else None).accumulate(sets)
    for sums, centroids in zip(found, sets, strict=True):
        ids, distances = nearest(vectors, centroids)
        for k in range(len(centroids)):
            expected = (vectors[ids == k] * weights[ids == k, None]).sum(0)
            np.testing.assert_allclose(sums.sums[k], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(sums.counts, np.bincount(ids, weights, minlength=len(centroids)))
        assert sums.inertia == pytest.approx(distances @ weights, rel=1e-5)


def test_sums_are_exact_where_float32_sums_would_not_be() -> None:
    vectors = np.full((1000, 1), 16_777_217 / 2**24, np.float32)
    sums = np.zeros((1, 1))
    add_members(sums, vectors.astype(np.float64) * 2**24, np.zeros(1000, np.int64), np.ones(1000))
    assert sums[0, 0] == 1000 * float(vectors[0, 0]) * 2**24


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("plan", [BlockPlan(True, 0), BlockPlan(False, 7)])
def test_a_slice_of_a_file_equals_the_array(tmp_path, dtype: type, plan: BlockPlan) -> None:
    vectors = draw(50, 4).astype(dtype)
    np.save(tmp_path / "v.npy", vectors)
    centroids = vectors[:3].astype(np.float32)
    shard = FaissShard(open_vectors(tmp_path / "v.npy").slice(10, 40), plan=plan)
    (found,), (expected,) = shard.accumulate([centroids]), FaissShard(vectors[10:40]).accumulate([centroids])
    np.testing.assert_allclose(found.sums, expected.sums)
    ((ids, inertia),) = shard.assign([centroids])
    ((same_ids, same_inertia),) = FaissShard(vectors[10:40]).assign([centroids])
    np.testing.assert_array_equal(ids, same_ids)
    assert inertia == pytest.approx(same_inertia, rel=1e-6)


def test_read_only_vectors_are_taken_as_they_are() -> None:
    """Arrays from Ray's object store are read-only."""
    vectors = draw(20, 4)
    vectors.flags.writeable = False
    ((ids, _),) = FaissShard(vectors).assign([vectors[:2]])
    assert ids[:2].tolist() == [0, 1]


@pytest.mark.parametrize("method", ["ivf", "hnsw"])
def test_approximate_assignment_finds_almost_the_nearest(method: str) -> None:
    centers = draw(400, 16) * 3
    vectors = centers[np.random.default_rng(1).integers(400, size=4000)] + draw(4000, 16, seed=2)
    ((ids, inertia),) = FaissShard(vectors, assign_method=method).assign([centers])
    exact, distances = nearest(vectors, centers)
    assert np.mean(ids == exact) > 0.9
    assert distances.sum() * (1 - 1e-6) <= inertia <= 1.1 * distances.sum()


def test_rows_with_nan_or_infinity_are_found() -> None:
    vectors = draw(40_000, 3)
    vectors[[5, 17_000, 39_999], [0, 1, 2]] = [np.nan, np.inf, -np.inf]
    assert FaissShard(vectors).survey().bad_rows.tolist() == [5, 17_000, 39_999]


def test_a_shard_of_one_thread_wakes_no_other() -> None:
    """OpenBLAS spins for some milliseconds after each product that it shares out: 7 of 27 microseconds a vector."""
    search = """
import numpy as np, psutil
from clray.kmeans.shards.faiss_shard import FaissShard
vectors = np.random.default_rng(0).normal(size=(400_000, 16)).astype(np.float32)
shard = FaissShard(vectors, num_threads=1)
def of_others():
    return sum(each.user_time + each.system_time for each in psutil.Process().threads()[1:])
before = of_others()
for work in (shard.accumulate, shard.assign, shard.measure):
    work([vectors[:64]])
print(of_others() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", search], env=os.environ | {"OPENBLAS_NUM_THREADS": "2"}, capture_output=True, check=True
    )
    assert float(done.stdout) == 0
