"""The Ray actors against shards in this process, on a real local Ray."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from clray.config.sections import KMeansConfig
from clray.errors import UserError
from clray.kmeans.attempts import Attempt
from clray.kmeans.lloyd import Clustering, lloyd
from clray.kmeans.options import KMeansOptions
from clray.kmeans.service import KMeansClient, KMeansService
from clray.kmeans.shards.actors import start_shard_actors
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.ray_shards import RayShards
from clray.kmeans.shards.together import LocalShards
from clray.kmeans.starts import start_centroids
from clray.kmeans.vectors.source import open_vectors, split_rows
from clray.ray_runtime.cluster import start_ray

pytestmark = pytest.mark.slow

CONFIG = KMeansConfig(num_shards=3, cpus_per_shard=0.1, num_iterations=6)
VECTORS = np.random.default_rng(0).normal(size=(900, 8)).astype(np.float32)
OPTIONS = KMeansOptions(num_iterations=6, seed=4)


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    start_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def actors(ray_cluster: None) -> list:  # noqa: ARG001
    return start_shard_actors(CONFIG)


@pytest.fixture(scope="module")
def service(ray_cluster: None) -> Any:  # noqa: ARG001
    return KMeansService.remote(CONFIG)


def local(num_clusters: int, options: KMeansOptions = OPTIONS) -> Clustering:
    return lloyd(LocalShards([FaissShard(VECTORS)]), [num_clusters], options)[0]


def in_store(actors: list, num_slices: int = 3, vectors: np.ndarray = VECTORS, **options: int) -> RayShards:
    bounds = split_rows(len(vectors), num_slices)
    return RayShards(actors, [ray.put(vectors[a:b]) for a, b in bounds], [b - a for a, b in bounds], **options)


@pytest.mark.parametrize(("num_slices", "fan_in"), [(3, 8), (11, 2), (11, 3)])
def test_actors_agree_with_one_local_shard(actors: list, num_slices: int, fan_in: int) -> None:
    """Also where the sums are reduced in a tree over more slices than actors."""
    (found,) = lloyd(in_store(actors, num_slices, fan_in=fan_in), [20], OPTIONS)
    np.testing.assert_array_equal(found.ids, local(20).ids)
    assert found.inertia == pytest.approx(local(20).inertia, rel=1e-6)


def test_files_are_read_by_the_actors(actors: list, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    parts = open_vectors(tmp_path / "v.npy").split(5)
    (found,) = lloyd(RayShards(actors, parts, [len(part) for part in parts]), [20], OPTIONS)
    assert found.inertia == pytest.approx(local(20).inertia, rel=1e-6)


def test_actors_find_the_vectors_closest_to_each_centroid(actors: list, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    parts = open_vectors(tmp_path / "v.npy").split(5)
    expected = LocalShards([FaissShard(VECTORS)]).closest(VECTORS[:20], 7)
    for shards in (in_store(actors, 4), RayShards(actors, parts, [len(part) for part in parts])):
        np.testing.assert_array_equal(shards.closest(VECTORS[:20], 7), expected)


def test_a_start_in_passes_is_that_of_one_process(actors: list, tmp_path: Path) -> None:
    """Of arrays and of files; what is nearest to each vector stays with the actors' nodes between the rounds."""
    np.save(tmp_path / "v.npy", VECTORS)
    parts = open_vectors(tmp_path / "v.npy").split(5)
    options = KMeansOptions(init="kmeans-parallel", seed=2)
    expected = start_centroids(LocalShards([FaissShard(VECTORS)]), 20, options, 0)
    for shards in (in_store(actors), RayShards(actors, parts, [len(part) for part in parts])):
        np.testing.assert_array_equal(start_centroids(shards, 20, options, 0), expected)


def test_bytes_per_iteration_do_not_depend_on_the_number_of_vectors(actors: list) -> None:
    traffic = []
    for num_vectors in (300, 900):
        shards = in_store(actors, vectors=VECTORS[:num_vectors])
        lloyd(shards, [10, 25], OPTIONS)
        traffic.append((shards.received_bytes, shards.sent_bytes))
    assert traffic[0] == traffic[1] == (35 * 8 * 4, 35 * 8 * 8 + 35 * 8)


def test_a_killed_actor_repeats_its_part_of_the_iteration(actors: list, tmp_path: Path) -> None:
    """Killed while it searches; it reads its slice again, and the result is the one without the fault."""
    vectors = np.random.default_rng(1).normal(size=(60_000, 64)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    parts = open_vectors(tmp_path / "v.npy").split(3)
    shards = RayShards(actors, parts, [len(part) for part in parts])
    initial = [vectors[:20_000]]
    before = shards.accumulate(initial)
    pid = ray.get(actors[1].__ray_call__.remote(lambda _: os.getpid()))
    threading.Thread(target=lambda: (time.sleep(0.3), os.kill(pid, signal.SIGKILL))).start()
    after = shards.accumulate(initial)
    assert ray.get(actors[1].__ray_call__.remote(lambda _: os.getpid())) != pid
    np.testing.assert_array_equal(after[0].sums, before[0].sums)
    assert after[0].inertia == before[0].inertia


def test_the_service_returns_each_worker_the_ids_of_its_own_vectors(service: Any) -> None:
    halves = [VECTORS[:500], VECTORS[500:]]

    @ray.remote(num_cpus=0)
    def worker(rank: int) -> np.ndarray:
        client = KMeansClient(service, CONFIG, Attempt("run", 0), rank=rank, world_size=2)
        return client(halves[rank], (15,), nested=False, seed=2, initial=None).result()[0].ids

    ids = np.concatenate(ray.get([worker.remote(rank) for rank in range(2)]))
    np.testing.assert_array_equal(ids, local(15, KMeansOptions(num_iterations=6, seed=2)).ids)


def test_the_users_error_comes_back_as_itself(service: Any) -> None:
    client = KMeansClient(service, CONFIG, Attempt("other", 0))
    with pytest.raises(UserError, match=r"between 1 and 900 .* got 901"):
        client(VECTORS, (901,), nested=False, seed=0, initial=None).result()


def test_too_small_a_bound_on_memory_is_refused_with_the_figure(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VECTORS)
    actors = start_shard_actors(CONFIG.model_copy(update={"num_shards": 1}), memory_bytes=10**7)
    shards = RayShards(actors, [open_vectors(tmp_path / "v.npy").slice(0, 900)], [900])
    with pytest.raises(UserError, match=r"memory_per_shard: 10 MB are too little: a shard needs at least \d+ MB"):
        shards.survey([5])


def test_the_sums_are_added_on_all_nodes() -> None:
    """Of 64 actors, dealt out to 8 nodes in turn, the first of each group of 8 would all be on one node."""
    nodes = [f"node {i % 8}" for i in range(64)]
    shards = RayShards([object()] * 64, [object()] * 64, [1] * 64, nodes=nodes, home="node 0")
    assert {nodes[shards._adder(i)] for i in range(0, 64, 8)} == set(nodes)
    assert shards._num_away_sums == 8 * 7 + 7


def test_what_crosses_the_network_is_counted_about_any_origin() -> None:
    shards = RayShards([object()], [object()], [4], nodes=["far"], home="here")
    shards.about(np.ones(2))._count([100])
    assert shards.traffic.num_bytes == 100
