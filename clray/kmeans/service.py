"""The Ray actor that a training run asks for a new assignment.

One service with one set of shard actors serves every trial of a sweep, so that no trial waits for actors to start and
none can deadlock over them. Workers of a run meet here: each brings its slice of the embeddings, and learns where the
cluster ids of that slice lie. The ids go from the shards to the workers; this process sees none of them.
"""

import asyncio
import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import ray
from jaxtyping import Float
from ray.exceptions import ObjectLostError

from clray.config.sections import KMeansConfig
from clray.interrupts import uninterrupted
from clray.kmeans.attempts import Attempt, Round, Rounds, Slice
from clray.kmeans.lloyd import Clustering
from clray.kmeans.refresh import Refreshed, refresh_clusters
from clray.kmeans.shards.actors import start_shard_actors
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.placement import nearest_shards
from clray.kmeans.shards.ray_shards import RayShards
from clray.kmeans.shards.reaching import fetch, until_reached
from clray.kmeans.shards.together import LocalShards
from clray.kmeans.shards.waiting import Watch
from clray.kmeans.vectors.source import split_rows
from clray.ray_runtime.actors import place_of
from clray.ray_runtime.board import leave_note, note_followed

RENDEZVOUS_TIMEOUT_SECONDS = 1800.0
"""For the workers of a run to come; what they have asked for then takes as long as it takes."""

ID_BYTES = 4
"""Of a cluster id, int32."""

MAX_WAITING = 100_000
"""Calls that may wait in the service at once: a coroutine each, and no thread."""

MAX_CLUSTERINGS = 64
"""Clusterings that run side by side; the shards take their parts in turn."""

END_SECONDS = 5.0
"""How long the head of the cluster may take to hear that a service is to end."""


@ray.remote(  # type: ignore[call-overload]  # its stubs leave out max_concurrency
    num_cpus=0, max_concurrency=MAX_WAITING, max_restarts=-1, max_task_retries=3
)
class KMeansService:
    """Runs Lloyd's iterations over shared shard actors, for many runs at once.

    Workers wait as coroutines: Ray gives each waiting call of an actor with threads a thread, and serves none where as
    many wait as it has. Where the service dies, Ray starts it anew with new shards and repeats the calls under way: a
    round needs nothing but what its workers bring.
    """

    def __init__(self, config: KMeansConfig, deterministic: bool = False) -> None:
        self.actors = start_shard_actors(config, deterministic=deterministic)
        told = partial(leave_note, _wait_note(str(ray.get_runtime_context().get_actor_id())))
        self.watch = Watch(self.actors, config, say=told, section="kmeans.")
        self.runs: dict[str, Rounds] = {}
        self.threads = ThreadPoolExecutor(MAX_CLUSTERINGS)

    async def shard_nodes(self) -> list[str | None]:
        """The node of each shard; None for one that Ray is still to place."""
        places = [place_of(actor._actor_id.hex()) for actor in self.actors]
        return [None if each is None else each.node for each in places]

    async def cluster(
        self,
        attempt: Attempt,
        rank: int,
        world_size: int,
        slices: list[Slice],
        num_clusters: tuple[int, ...],
        nested: bool,
        config: KMeansConfig,
        seed: int,
        initial: list[np.ndarray] | None,
    ) -> Refreshed:
        """Cluster the slices of all ranks; the ids are references, one for each slice of this rank.

        Args:
            attempt: of the run; equal on all ranks. The first call of a new one ends the rounds of the one before.
            config: the run's iterations, redos and spherical mode; the shards are those of the service.
            slices: of this rank, in row order.
            seed: of the clustering; tells it from others of the attempt.
            nested, initial: as for `clray.training.workers.port.Cluster`.

        Raises:
            TimeoutError: another rank did not come in RENDEZVOUS_TIMEOUT_SECONDS.
            Superseded: a newer attempt of the run has come.
        """
        rounds = self.runs.setdefault(attempt.run, Rounds(attempt))
        rounds.enter(attempt)
        meeting = rounds.open.setdefault(seed, Round(world_size))
        has_begun = bool(meeting.counts)
        if not has_begun:  # else a call that Ray repeats
            meeting.slices[rank] = slices
        if not has_begun and len(meeting.slices) == world_size:
            pieces = [meeting.slices[each] for each in range(world_size)]
            meeting.counts = [len(each) for each in pieces]
            meeting.complete()
            work = partial(self._cluster, pieces, num_clusters, nested, config, seed, initial)
            asyncio.get_running_loop().run_in_executor(self.threads, work).add_done_callback(
                partial(_hand_over, meeting)
            )
        try:
            await meeting.all_here(attempt.run, RENDEZVOUS_TIMEOUT_SECONDS)
            # Without a limit: Ray tells of a shard that dies, and a pass over very many vectors may take hours.
            found = await asyncio.shield(meeting.result)
        finally:
            meeting.served.add(rank)
            if len(meeting.served) == world_size and rounds.open.get(seed) is meeting:
                del rounds.open[seed]
        start = sum(meeting.counts[:rank])
        return replace(found, ids=[each[start : start + meeting.counts[rank]] for each in found.ids])

    def _cluster(
        self,
        ranks: list[list[Slice]],
        num_clusters: tuple[int, ...],
        nested: bool,
        config: KMeansConfig,
        seed: int,
        initial: list[np.ndarray] | None,
    ) -> Refreshed:
        """The clustering of all slices, those of each rank in order; blocks, so that it runs in a thread."""
        slices = [piece for pieces in ranks for piece in pieces]
        home = ray.get_runtime_context().get_node_id()
        nodes = until_reached(lambda: [actor.node.remote() for actor in self.actors], self.watch, "k-means")
        chosen = nearest_shards([each.node for each in slices], nodes)
        shards = RayShards(
            [self.actors[shard] for shard in chosen],
            [each.vectors for each in slices],
            [each.size for each in slices],
            nodes=[nodes[shard] for shard in chosen],
            home=home,
            watch=self.watch,
        )
        found = refresh_clusters(shards, num_clusters, config, nested=nested, seed=seed, initial=initial)
        # What goes to a shard on another node comes back from there as ids.
        moved = [each for each, shard in zip(slices, chosen, strict=True) if each.node != nodes[shard]]
        between = sum(each.num_bytes + ID_BYTES * len(found.ids) * each.size for each in moved)
        # Each worker brings the centroids to start from, and takes the new ones.
        num_away = sum(pieces[0].node != home for pieces in ranks)
        taken = [array for each in found.levels for array in (each.centroids, each.sizes)]
        ends = num_away * sum(each.nbytes for each in (*(initial or []), *taken, *found.parents))
        return replace(found, network_bytes=shards.traffic.num_bytes + between + ends)


@contextmanager
def service_ended(service: Any | None, say: Callable[[str], None] | None = None) -> Iterator[Any | None]:
    """End the k-means service with the block, whatever ends that, where there is one.

    Handles of it live on, in Ray Tune and in the traceback of Ctrl-C, and with one its shards would hold their CPUs.
    The head of the cluster, which is asked, may be what is lost: it is not waited for.

    Args:
        say: is told, from another thread, of shards that the service waits for.
    """
    try:
        if service is None or say is None:
            yield service
        else:
            with note_followed(_wait_note(service._actor_id.hex()), say):
                yield service
    finally:
        if service is not None and ray.is_initialized():
            with uninterrupted():
                asking = threading.Thread(target=_end, args=(service,), daemon=True)
                asking.start()
                asking.join(END_SECONDS)


def _wait_note(actor_id: str) -> str:
    """The name of the note in which a service says for which shards it waits."""
    return f"waits of {actor_id}"


def _end(service: Any) -> None:
    with suppress(Exception):  # what cannot be asked any more has nothing to tell who waits for the block's own error
        ray.kill(service)


def _hand_over(meeting: Round, done: "asyncio.Future[Refreshed]") -> None:
    """Give what a thread found to all who wait; an answer that comes after the round has ended is dropped."""
    meeting.slices = {}  # lets go of the workers' vectors
    if meeting.result.done() or done.cancelled():
        return
    error = done.exception()
    if error is None:
        meeting.result.set_result(done.result())
    else:
        meeting.result.set_exception(error)


class KMeansClient:
    """A run's side of the service: one call per clustering, from each of its workers."""

    def __init__(
        self, service: Any, config: KMeansConfig, attempt: Attempt, *, rank: int = 0, world_size: int = 1
    ) -> None:
        """Args: `attempt` names this start of the run, so that a restarted run never meets its own past."""
        self.service = service
        self.config = config
        self.attempt = attempt
        self.rank = rank
        self.world_size = world_size

    def __call__(
        self,
        vectors: Float[np.ndarray, "n dim"],
        num_clusters: tuple[int, ...],
        *,
        nested: bool,
        seed: int,
        initial: list[np.ndarray] | None,
    ) -> "RemoteClustering":
        """Start to cluster the embeddings of all workers; the ids will be those of this worker's vectors."""
        bounds = split_rows(len(vectors), math.ceil(self.config.num_shards / self.world_size))
        node = ray.get_runtime_context().get_node_id()
        parts = [vectors[start:stop] for start, stop in bounds]
        slices = [Slice(ray.put(part), len(part), part.nbytes, node) for part in parts]
        reference = self.service.cluster.remote(
            self.attempt, self.rank, self.world_size, slices, num_clusters, nested, self.config, seed, initial
        )
        return RemoteClustering(reference, slices)


@dataclass
class RemoteClustering:
    """A clustering under way in the service; holds the vectors until their ids are here."""

    reference: Any
    slices: list[Slice]

    def ready(self) -> bool:
        return bool(ray.wait([self.reference], timeout=0)[0])

    def result(self) -> list[Clustering]:
        """Wait for the clustering; raises what `fetch` does."""
        found: Refreshed = fetch(self.reference)
        try:
            ids = [np.concatenate(ray.get(each)) for each in found.ids]
        except ObjectLostError:  # with the shard that found them; the vectors are still here
            ids = self._ids_here(found)
        return found.clusterings(ids)

    def _ids_here(self, found: Refreshed) -> list[np.ndarray]:
        own = [FaissShard(vectors) for vectors in ray.get([each.vectors for each in self.slices])]
        return [ids for ids, _ in LocalShards(own).about(found.origin).assign(found.searched)]
