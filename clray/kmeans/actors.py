"""Shards as Ray actors: each search runs where its slice of the vectors lies.

An actor keeps no state between calls: the slice travels as an object reference (mapped without a copy on the same
node) or as the name of a file. A killed actor is therefore restarted by Ray and simply repeats the call.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import ray
from jaxtyping import Float, Int
from ray.exceptions import RayTaskError

from clray.config import KMeansConfig, UserError
from clray.kmeans.shard import FaissShard, PartialSums
from clray.kmeans.vectors import NpySlice, VectorSlice


@ray.remote(max_restarts=-1, max_task_retries=3)
class ShardActor:
    """Searches whichever slice of vectors a call brings along."""

    def __init__(self, num_threads: int, use_gpu: bool) -> None:
        self.num_threads = num_threads
        self.use_gpu = use_gpu

    def _shard(self, vectors: VectorSlice) -> FaissShard:
        return FaissShard(vectors, num_threads=self.num_threads, use_gpu=self.use_gpu)

    def take(self, vectors: VectorSlice, rows: np.ndarray) -> np.ndarray:
        return self._shard(vectors).take(rows)

    def accumulate(self, vectors: VectorSlice, centroids: np.ndarray) -> PartialSums:
        return self._shard(vectors).accumulate(centroids)

    def assign(self, vectors: VectorSlice, centroids: np.ndarray) -> tuple[np.ndarray, float]:
        return self._shard(vectors).assign(centroids)


def start_shard_actors(config: KMeansConfig) -> list[Any]:
    """`num_shards` actors, spread over the nodes."""
    resources = {"num_cpus": config.cpus_per_shard, "num_gpus": config.gpus_per_shard}
    num_threads = max(1, int(config.cpus_per_shard))
    options = ShardActor.options(scheduling_strategy="SPREAD", **resources)
    return [options.remote(num_threads, config.gpus_per_shard > 0) for _ in range(config.num_shards)]


class RayShards:
    """The `Shards` of Lloyd's algorithm over actors; slice i is searched by actor i modulo their number."""

    def __init__(self, actors: Sequence[Any], slices: Sequence[Any], sizes: Sequence[int]) -> None:
        """Args: the actors; an object reference or `NpySlice` per slice; the number of vectors in each."""
        self.actors = [actors[i % len(actors)] for i in range(len(slices))]
        self.slices = slices
        self._starts = np.cumsum([0, *sizes])

    @property
    def num_vectors(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m dim"]:
        parts = [
            rows[(rows >= start) & (rows < stop)] - start
            for start, stop in zip(self._starts[:-1], self._starts[1:], strict=True)
        ]
        pieces = [
            actor.take.remote(vectors, part)
            for actor, vectors, part in zip(self.actors, self.slices, parts, strict=True)
        ]
        return np.concatenate(fetch(pieces))

    def accumulate(self, centroids: Float[np.ndarray, "k dim"]) -> PartialSums:
        shared = ray.put(centroids)
        partial = fetch([a.accumulate.remote(v, shared) for a, v in zip(self.actors, self.slices, strict=True)])
        return sum(partial[1:], start=partial[0])

    def assign(self, centroids: Float[np.ndarray, "k dim"]) -> tuple[Int[np.ndarray, " n"], float]:
        shared = ray.put(centroids)
        found = fetch([a.assign.remote(v, shared) for a, v in zip(self.actors, self.slices, strict=True)])
        return np.concatenate([ids for ids, _ in found]), float(sum(inertia for _, inertia in found))


def shards_of_file(actors: Sequence[Any], path: str, bounds: Sequence[tuple[int, int]]) -> RayShards:
    """Shards over row ranges of one `.npy` file that every node can read."""
    slices = [NpySlice(path, start, stop) for start, stop in bounds]
    return RayShards(actors, slices, [stop - start for start, stop in bounds])


def fetch(refs: Any) -> Any:
    """`ray.get`, with the error of the remote code itself instead of a nest of remote tracebacks."""
    try:
        return ray.get(refs)
    except RayTaskError as error:
        cause = error.cause
        while isinstance(cause, RayTaskError):
            cause = cause.cause
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        raise
