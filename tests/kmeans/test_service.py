"""The service that workers of many runs ask for clusters: nobody waits for a thread, and no past holds a place."""

import inspect
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray

from clray.config.sections import KMeansConfig
from clray.kmeans.attempts import Attempt, new_attempt, newest_attempt
from clray.kmeans.lloyd import Clustering
from clray.kmeans.service import KMeansClient, KMeansService, RemoteClustering

CONFIG = KMeansConfig(num_shards=2, num_iterations=1, cpus_per_shard=0.1)
VECTORS = np.random.default_rng(0).normal(size=(1024, 4)).astype(np.float32)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def service() -> Iterator[Any]:
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield KMeansService.remote(CONFIG)
    ray.shutdown()


def ask(service: Any, attempt: Attempt, rank: int, world_size: int) -> RemoteClustering:
    client = KMeansClient(service, CONFIG, attempt, rank=rank, world_size=world_size)
    own = np.array_split(VECTORS, world_size)[rank]
    return client(own, (2,), nested=False, seed=0, initial=None)


def test_512_workers_of_one_run_are_served(service: Any) -> None:
    asked = [ask(service, Attempt("large", 0), rank, 512) for rank in range(512)]
    found = [each.result()[0] for each in asked]
    assert [len(each.ids) for each in found] == [2] * 512
    whole = np.concatenate([each.ids for each in found])
    nearest = ((VECTORS[:, None] - found[0].centroids) ** 2).sum(axis=2).argmin(axis=1)
    np.testing.assert_array_equal(whole, nearest)


@pytest.mark.long
def test_64_runs_of_8_workers_meet_their_own_side_by_side(service: Any) -> None:
    """All first workers ask before any second one does, so that each run waits while the others fill the service."""
    asked = {(run, rank): ask(service, Attempt(f"run {run}", 0), rank, 8) for rank in range(8) for run in range(64)}
    assert {len(each.result()[0].ids) for each in asked.values()} == {128}


def test_a_new_attempt_ends_the_rounds_of_the_one_before(service: Any) -> None:
    waiting = ask(service, Attempt("restarted", 0), 0, 2)
    renewed = [ask(service, Attempt("restarted", 1), rank, 2) for rank in range(2)]
    assert sum(len(each.result()[0].ids) for each in renewed) == len(VECTORS)
    with pytest.raises(RuntimeError, match="restarted has been started again"):
        waiting.result()
    with pytest.raises(RuntimeError, match="restarted has been started again"):
        ask(service, Attempt("restarted", 0), 1, 2).result()


def test_a_clustering_may_take_longer_than_its_workers_are_waited_for(service: Any) -> None:
    """With all of them there it ended by that time, as if one had not come."""
    seconds = ray.get(service.__ray_call__.remote(_wait_for_workers, 0.2))
    vectors = np.random.default_rng(0).normal(size=(30_000, 4)).astype(np.float32)
    config = CONFIG.model_copy(update={"num_iterations": 60})
    try:
        start = time.monotonic()
        client = KMeansClient(service, config, Attempt("slow", 0))
        assert len(client(vectors, (200,), nested=False, seed=0, initial=None).result()[0].ids) == len(vectors)
        assert time.monotonic() - start > 0.2
        alone = KMeansClient(service, config, Attempt("alone", 0), world_size=2)
        with pytest.raises(TimeoutError, match=r"alone: 1 of 2 workers came in 0\.2 s"):
            alone(vectors, (2,), nested=False, seed=0, initial=None).result()
    finally:
        ray.get(service.__ray_call__.remote(_wait_for_workers, seconds))


def _wait_for_workers(this: Any, seconds: float) -> float:
    """In the service's process, to which Ray copies what its class reads: how long it waited for workers until now."""
    read = inspect.unwrap(type(this).cluster).__globals__
    before: float = read["RENDEZVOUS_TIMEOUT_SECONDS"]
    read["RENDEZVOUS_TIMEOUT_SECONDS"] = seconds
    return before


def test_an_error_reaches_every_worker_of_the_run(service: Any) -> None:
    client = KMeansClient(service, CONFIG, Attempt("too many", 0), rank=0, world_size=2)
    other = KMeansClient(service, CONFIG, Attempt("too many", 0), rank=1, world_size=2)
    asked = [each(VECTORS[:3], (9,), nested=False, seed=0, initial=None) for each in (client, other)]
    for each in asked:
        with pytest.raises(ValueError, match=r"got 9"):
            each.result()


def test_attempts_of_a_run_are_numbered_whichever_process_begins_them(service: Any) -> None:  # noqa: ARG001
    elsewhere: Any = ray.remote(num_cpus=0)(new_attempt)
    assert newest_attempt("numbered") is None
    begun = [new_attempt("numbered"), ray.get(elsewhere.remote("numbered")), new_attempt("numbered")]
    assert [each.number for each in begun] == [0, 1, 2]
    assert newest_attempt("numbered") == begun[-1]
    assert new_attempt("another").number == 0


def test_ids_go_from_the_shards_to_the_workers_past_the_service(service: Any) -> None:
    """Those of all vectors would take 16 MB of the service's process, which it holds as little as the vectors."""
    vectors = np.linspace(0, 1, 4_000_000, dtype=np.float32)[:, None]
    clients = [KMeansClient(service, CONFIG, Attempt("past", 0), rank=rank, world_size=2) for rank in range(2)]

    def refresh(seed: int, whole: np.ndarray) -> list[Clustering]:
        halves = np.split(whole, 2)
        asked = [
            client(half, (2,), nested=False, seed=seed, initial=None)
            for client, half in zip(clients, halves, strict=True)
        ]
        return [each.result()[0] for each in asked]

    refresh(0, vectors[:1000])
    before = peak_bytes(service)
    found = refresh(1, vectors)
    assert peak_bytes(service) - before < 8_000_000
    order = np.argsort(found[0].centroids[:, 0])
    ids = np.concatenate([each.ids for each in found])
    np.testing.assert_array_equal(ids, order[(vectors[:, 0] > found[0].centroids.mean()).astype(int)])


def peak_bytes(service: Any) -> int:
    """Of the service's resident memory so far, the object store's pages that it touched with it."""
    status: str = ray.get(service.__ray_call__.remote(lambda _: Path("/proc/self/status").read_text()))
    (line,) = [each for each in status.splitlines() if each.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def test_ids_that_die_with_their_shard_are_found_by_the_worker(service: Any) -> None:
    """About an origin too, and under nested clusters."""
    client = KMeansClient(service, CONFIG, Attempt("lost", 0))

    def begun(seed: int) -> RemoteClustering:
        asked = client(VECTORS + 100, (9, 3), nested=True, seed=seed, initial=None)
        ray.wait([asked.reference], timeout=120)
        return asked

    expected, asked = begun(0).result(), begun(0)
    for actor in ray.get(service.__ray_call__.remote(lambda this: this.actors)):
        os.kill(ray.get(actor.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
    for one, other in zip(asked.result(), expected, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.centroids, other.centroids)
