"""The Ray actors against shards in this process, on a real local Ray."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from clray.config import KMeansConfig, UserError
from clray.kmeans.actors import RayShards, shards_of_file, start_shard_actors
from clray.kmeans.lloyd import LocalShards, lloyd
from clray.kmeans.service import KMeansClient, KMeansService
from clray.kmeans.shard import FaissShard
from clray.kmeans.vectors import split_rows
from clray.train.resources import start_ray

pytestmark = pytest.mark.slow

CONFIG = KMeansConfig(num_shards=3, cpus_per_shard=0.1, num_iterations=6)
VECTORS = np.random.default_rng(0).normal(size=(900, 8)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    start_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def actors(ray_cluster: None) -> list:  # noqa: ARG001
    return start_shard_actors(CONFIG)


def local(num_clusters: int, **options: object) -> np.ndarray:
    return lloyd(LocalShards([FaissShard(VECTORS)]), num_clusters, num_iterations=6, **options)


def test_actors_agree_with_one_local_shard(actors: list) -> None:
    bounds = split_rows(len(VECTORS), 3)
    shards = RayShards(actors, [ray.put(VECTORS[a:b]) for a, b in bounds], [b - a for a, b in bounds])
    found, expected = lloyd(shards, 20, num_iterations=6, seed=4), local(20, seed=4)
    np.testing.assert_array_equal(found.ids, expected.ids)
    assert found.inertia == pytest.approx(expected.inertia, rel=1e-6)


def test_a_file_is_mapped_by_the_actors(actors: list, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    shards = shards_of_file(actors, str(tmp_path / "v.npy"), split_rows(len(VECTORS), 5))
    assert lloyd(shards, 20, num_iterations=6, seed=4).inertia == pytest.approx(local(20, seed=4).inertia, rel=1e-6)


def test_a_killed_actor_comes_back_and_repeats_its_call(actors: list) -> None:
    bounds = split_rows(len(VECTORS), 3)
    shards = RayShards(actors, [ray.put(VECTORS[a:b]) for a, b in bounds], [b - a for a, b in bounds])
    pid = ray.get(actors[1].__ray_call__.remote(lambda _: os.getpid()))
    before = shards.accumulate(VECTORS[:5])
    os.kill(pid, signal.SIGKILL)
    after = shards.accumulate(VECTORS[:5])
    np.testing.assert_allclose(after.sums, before.sums)


def test_the_service_returns_each_worker_the_ids_of_its_own_vectors() -> None:
    service = KMeansService.remote(CONFIG)
    halves = [VECTORS[:500], VECTORS[500:]]

    @ray.remote(num_cpus=0)
    def worker(rank: int) -> np.ndarray:
        client = KMeansClient(service, CONFIG, "attempt", rank=rank, world_size=2)
        return client(halves[rank], 15, seed=2, initial=None).ids

    ids = np.concatenate(ray.get([worker.remote(rank) for rank in range(2)]))
    np.testing.assert_array_equal(ids, local(15, seed=2).ids)


def test_the_users_error_comes_back_as_itself() -> None:
    client = KMeansClient(KMeansService.remote(CONFIG), CONFIG, "other")
    with pytest.raises(UserError, match=r"between 1 and 900 .* got 901"):
        client(VECTORS, 901, seed=0, initial=None)
