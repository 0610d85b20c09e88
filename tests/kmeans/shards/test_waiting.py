"""Shards that are waited for: those that compute, those that answer nothing, and those that Ray cannot place."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
import ray

from clray.config.sections import KMeansConfig
from clray.errors import UserError, WaitedTooLong
from clray.kmeans.attempts import Attempt
from clray.kmeans.service import KMeansClient, KMeansService, service_ended
from clray.kmeans.shards.actors import start_shard_actors
from clray.kmeans.shards.port import PartialSums
from clray.kmeans.shards.ray_shards import RayShards
from clray.kmeans.shards.waiting import Watch
from clray.ray_runtime import board
from clray.ray_runtime.cluster import start_ray

pytestmark = pytest.mark.slow
CONFIG = KMeansConfig(num_shards=3, cpus_per_shard=0.1, timeout_seconds=4)
VECTORS = np.random.default_rng(0).normal(size=(900, 8)).astype(np.float32)


@pytest.fixture(scope="module", autouse=True)
def ray_cluster() -> Iterator[None]:
    start_ray()
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def actors(ray_cluster: None) -> list[Any]:  # noqa: ARG001
    started = start_shard_actors(CONFIG)
    ray.get([each.answer.remote() for each in started])
    return started


@contextmanager
def stopped(actor: Any) -> Iterator[int]:
    """Its process, which hears nothing meanwhile."""
    process: int = ray.get(actor.__ray_call__.remote(lambda _: os.getpid()))
    os.kill(process, signal.SIGSTOP)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # it was replaced
            os.kill(process, signal.SIGCONT)


def test_a_stopped_shard_is_told_and_waited_for_only_so_long(actors: list[Any]) -> None:
    told: list[str] = []
    watch = Watch(actors, CONFIG, say=told.append)
    watch.replace_seconds = 1000.0
    slices = [ray.put(each) for each in np.split(VECTORS, 3)]
    shards = RayShards(actors, slices, [300] * 3, watch=watch)
    before = shards.accumulate([VECTORS[:10]])
    with stopped(actors[1]) as process:
        with pytest.raises(WaitedTooLong) as ended:
            shards.accumulate([VECTORS[:10]])
        time.sleep(2)
        # Another wait goes on from there, and does not begin anew, which would end after 4 s.
        with pytest.raises(WaitedTooLong, match=r"has not answered for ([6-9]|\d\d+) s"):
            shards.accumulate([VECTORS[:10]])
    ray.get(actors[1].answer.remote())
    where = rf"2 of 3 k-means shards answer; shard 1 \(process {process} on node [\d.]+\) has not answered for \d+ s"
    assert re.fullmatch(f"waiting for the sums of an iteration: {where}", told[0])
    assert re.match(rf"waited 4 s \(timeout_seconds\) for the sums of an iteration: {where}\. ", str(ended.value))
    assert len(told) <= 3, "more and more rarely"
    after = shards.accumulate([VECTORS[:10]])
    np.testing.assert_array_equal(after[0].sums, before[0].sums)


def test_the_process_of_a_stopped_shard_is_replaced_and_its_work_repeated(actors: list[Any]) -> None:
    told: list[str] = []
    watch = Watch(actors, CONFIG.model_copy(update={"timeout_seconds": 300.0}), say=told.append)
    watch.ask_seconds, watch.replace_seconds = 0.5, 4.0
    shards = RayShards(actors, [ray.put(each) for each in np.split(VECTORS, 3)], [300] * 3, watch=watch)
    before = shards.accumulate([VECTORS[:10]])
    with stopped(actors[2]) as process:
        after = shards.accumulate([VECTORS[:10]])
    np.testing.assert_array_equal(after[0].sums, before[0].sums)
    (said,) = told
    assert re.fullmatch(
        rf"k-means shard 2 \(process {process} on node [\d.]+\) has not answered for \d+ s: it is started again", said
    )


def test_a_shard_that_computes_is_waited_for_as_long_as_it_takes(actors: list[Any]) -> None:
    """And one that is asked behind it, for what the other will have made."""
    told: list[str] = []
    config = CONFIG.model_copy(update={"timeout_seconds": 12.0})
    watch = Watch(actors, config, say=told.append)
    computing = actors[0].__ray_call__.remote(_compute, config.timeout_seconds + 1)
    watch.get([computing, actors[1].add.remote(computing)], "a long pass")
    assert not told


def test_an_error_of_one_shard_is_raised_while_another_computes(actors: list[Any]) -> None:
    computing = actors[0].__ray_call__.remote(_compute, 60.0)
    failing = actors[1].__ray_call__.remote(_fail)
    with pytest.raises(ray.exceptions.RayTaskError, match="too little memory"):
        Watch(actors, CONFIG).get([computing, failing], "a long pass")
    assert not ray.wait([computing], timeout=0)[0]
    ray.kill(actors[0], no_restart=False)


def _fail(_: Any) -> None:
    raise UserError("too little memory")


def _compute(_: Any, seconds: float) -> list[PartialSums]:
    time.sleep(seconds)
    return []


def test_a_shard_that_no_node_has_room_for_is_told_with_what_it_needs() -> None:
    config = CONFIG.model_copy(update={"num_shards": 1, "cpus_per_shard": 512.0})
    told: list[str] = []
    (actor,) = start_shard_actors(config)
    watch = Watch([actor], config, say=told.append, section="kmeans.")
    shards = RayShards([actor], [ray.put(VECTORS)], [900], watch=watch)
    with pytest.raises(WaitedTooLong, match=r"waited 4 s \(kmeans\.timeout_seconds\).*lower kmeans\.num_shards"):
        shards.survey([10])
    free = r"[\d.]+ CPUs?( and [\d.]+ GPUs?)?"
    why = rf"Ray has not placed shard 0 for \d+ s: it needs 512 CPUs, and the largest free node has {free}"
    assert re.fullmatch(f"waiting for a first pass: 0 of 1 k-means shards answer; {why}", told[0])


def test_the_service_tells_whoever_started_it_and_its_workers_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(board, "FOLLOW_SECONDS", 0.1)
    config = CONFIG.model_copy(update={"cpus_per_shard": 512.0})
    told: list[str] = []
    with service_ended(KMeansService.remote(config), told.append) as service:
        client = KMeansClient(service, config, Attempt("waiting", 0))
        asked = client(VECTORS, (10,), nested=False, seed=0, initial=None)
        with pytest.raises(UserError, match=r"\(kmeans\.timeout_seconds\) for k-means: 0 of 3"):
            asked.result()
    assert told[0].startswith("waiting for k-means: 0 of 3 k-means shards answer; Ray has not placed shard 0 for")
