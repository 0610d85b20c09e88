"""The Ray actor that a training run asks for a new assignment.

One service with one set of shard actors serves every trial of a sweep, so that no trial waits for actors to start and
none can deadlock over them. Workers of a run meet here: each brings its slice of the embeddings, and gets back the
cluster ids of that slice.
"""

import math
import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import ray
from jaxtyping import Float

from clray.config.sections import KMeansConfig
from clray.kmeans.lloyd import Clustering
from clray.kmeans.refresh import refresh_clusters
from clray.kmeans.shards.actors import RayShards, fetch, start_shard_actors
from clray.kmeans.shards.placement import nearest_shards
from clray.kmeans.vectors.source import split_rows

RENDEZVOUS_TIMEOUT_SECONDS = 1800.0


@dataclass(frozen=True)
class Slice:
    """Vectors of a worker in the object store of its node."""

    vectors: Any
    size: int
    num_bytes: int
    node: str


class _Round:
    """One clustering, while the workers of a run arrive."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.slices: dict[int, list[Slice]] = {}
        self.ready = threading.Event()
        self.clusterings: list[Clustering] | None = None
        self.error: BaseException | None = None
        self.num_served = 0


@ray.remote(  # type: ignore[call-overload]  # its stubs leave out max_concurrency
    num_cpus=0, max_concurrency=64, max_restarts=-1, max_task_retries=3
)
class KMeansService:
    """Runs Lloyd's iterations over shared shard actors, for many runs at once.

    Where it dies, Ray starts it anew with new shards and repeats the calls under way: a round needs nothing but what
    its workers bring.
    """

    def __init__(self, config: KMeansConfig) -> None:
        self.actors = start_shard_actors(config)
        self.rounds: dict[tuple[str, int], _Round] = {}
        self.lock = threading.Lock()

    def cluster(
        self,
        key: tuple[str, int],
        rank: int,
        world_size: int,
        slices: list[Slice],
        num_clusters: tuple[int, ...],
        nested: bool,
        config: KMeansConfig,
        seed: int,
        initial: list[np.ndarray] | None,
    ) -> list[Clustering]:
        """Cluster the slices of all ranks; the ids returned are those of this rank's vectors.

        Args:
            key: names the attempt of a run and the clustering; equal on all ranks.
            config: the run's iterations, redos and spherical mode; the shards are those of the service.
            slices: of this rank, in row order.
            nested, initial: as for `clray.training.workers.port.Cluster`.

        Raises:
            TimeoutError: another rank did not come.
        """
        with self.lock:
            meeting = self.rounds.setdefault(key, _Round(world_size))
            meeting.slices[rank] = slices
            is_last = len(meeting.slices) == world_size
        if is_last:
            try:
                meeting.clusterings = self._run(meeting, num_clusters, nested, config, seed, initial)
            except BaseException as error:  # handed to every waiting rank below
                meeting.error = error
            meeting.ready.set()
        if not meeting.ready.wait(RENDEZVOUS_TIMEOUT_SECONDS):
            raise TimeoutError(f"clustering {key}: {len(meeting.slices)} of {world_size} workers came")
        with self.lock:
            meeting.num_served += 1
            if meeting.num_served == world_size:
                self.rounds.pop(key, None)
        if meeting.error is not None:
            raise meeting.error
        results = meeting.clusterings
        assert results is not None, "a round without an error has a clustering"
        sizes = [sum(each.size for each in meeting.slices[other]) for other in range(world_size)]
        start = sum(sizes[:rank])
        return [replace(each, ids=each.ids[start : start + sizes[rank]]) for each in results]

    def _run(
        self,
        meeting: _Round,
        num_clusters: tuple[int, ...],
        nested: bool,
        config: KMeansConfig,
        seed: int,
        initial: list[np.ndarray] | None,
    ) -> list[Clustering]:
        slices = [piece for rank in range(meeting.world_size) for piece in meeting.slices[rank]]
        home, nodes = ray.get_runtime_context().get_node_id(), fetch([actor.node.remote() for actor in self.actors])
        chosen = nearest_shards([each.node for each in slices], nodes)
        shards = RayShards(
            [self.actors[shard] for shard in chosen],
            [each.vectors for each in slices],
            [each.size for each in slices],
            nodes=[nodes[shard] for shard in chosen],
            home=home,
        )
        clusterings = refresh_clusters(
            shards, num_clusters, config, nested=nested, seed=seed, initial=initial
        )  # fmt: skip
        moved = sum(each.num_bytes for each, shard in zip(slices, chosen, strict=True) if each.node != nodes[shard])
        # Each worker brings the centroids to start from, and takes the new ones and the ids of its own vectors.
        ranks = [meeting.slices[rank] for rank in range(meeting.world_size)]
        away = [pieces for pieces in ranks if pieces[0].node != home]
        brought = len(away) * sum(each.nbytes for each in initial or [])
        answered = len(away) * sum(each.centroids.nbytes for each in clusterings)
        answered += sum(piece.size * each.ids.itemsize for pieces in away for piece in pieces for each in clusterings)
        total = shards.traffic.num_bytes + moved + brought + answered
        return [replace(each, network_bytes=total) for each in clusterings]


class KMeansClient:
    """A run's side of the service: one call per clustering, from each of its workers."""

    def __init__(self, service: Any, config: KMeansConfig, attempt: str, *, rank: int = 0, world_size: int = 1) -> None:
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
        key, config = (self.attempt, seed), self.config
        return RemoteClustering(
            self.service.cluster.remote(
                key, self.rank, self.world_size, slices, num_clusters, nested, config, seed, initial
            ),
            slices,
        )


@dataclass
class RemoteClustering:
    """A clustering under way in the service; holds the vectors until it is done."""

    reference: Any
    slices: list[Slice]

    def ready(self) -> bool:
        return bool(ray.wait([self.reference], timeout=0)[0])

    def result(self) -> list[Clustering]:
        """Wait for the clustering; raises what `fetch` does."""
        clusterings: list[Clustering] = fetch(self.reference)
        return clusterings
