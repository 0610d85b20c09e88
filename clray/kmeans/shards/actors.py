"""Shards as Ray actors: each search runs where its slice of the vectors lies.

An actor keeps nothing that it could not read again: a slice of an array travels as an object reference (mapped without
a copy on the same node), a slice of files as their names. A killed actor is therefore restarted by Ray, on another node
where its own is lost, and simply repeats the call; the result is the same.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import ray
from jaxtyping import Float, Int

from clray.config.sections import KMeansConfig
from clray.kmeans.closest import Closest, closest_members
from clray.kmeans.options import AssignMethod
from clray.kmeans.origin import Survey
from clray.kmeans.shards.choice import require_gpu
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.kept import KeptShards
from clray.kmeans.shards.nearest import Nearest, approach, draw
from clray.kmeans.shards.port import Measured, PartialSums, Placed, placed
from clray.kmeans.shards.reaching import MAX_REPEATS, fetch
from clray.kmeans.shards.together import add_sums
from clray.kmeans.vectors.source import FileSlice
from clray.ray_runtime.room import Bundle, Group


@ray.remote(  # type: ignore[call-overload]  # its stubs leave out concurrency_groups
    max_restarts=-1,
    max_task_retries=MAX_REPEATS,
    # A thread that answers while the other computes, and calls that no earlier one holds up: each brings all it needs.
    concurrency_groups={"answers": 1},
    allow_out_of_order_execution=True,
)
class ShardActor:
    """Searches whichever slice of vectors a call brings along; keeps the last slice of files that fits its memory."""

    def __init__(
        self,
        config: KMeansConfig,
        assign_method: AssignMethod,
        memory_bytes: int | None,
        num_clusters: Sequence[int],
        deterministic: bool,
    ) -> None:
        self.kept = KeptShards(
            config, assign_method, memory_bytes, num_clusters=num_clusters, deterministic=deterministic
        )

    @ray.method(concurrency_group="answers")
    def answer(self) -> None:
        """That this process runs, whatever it computes."""

    @ray.method(concurrency_group="answers")
    def node(self) -> str:
        """The node it is on, which changes where Ray restarts it elsewhere."""
        return ray.get_runtime_context().get_node_id()

    def survey(self, key: str, vectors: FileSlice | np.ndarray, num_clusters: Sequence[int]) -> Survey:
        """Check that the memory suffices, and look through the slice once."""
        return self.kept.open(key, vectors, num_clusters).survey()

    def take(
        self, vectors: FileSlice | np.ndarray, origin: np.ndarray | None, rows: Int[np.ndarray, " m"]
    ) -> Float[np.ndarray, "m dim"]:
        return FaissShard(vectors).about(origin).take(rows)

    def approach(
        self,
        key: str,
        vectors: FileSlice | np.ndarray,
        origin: np.ndarray | None,
        candidates: Float[np.ndarray, "_ dim"],
        before: Nearest | None,
    ) -> tuple[Nearest, tuple[float, np.ndarray]]:
        """As `Shards.approach`; the first result stays in the object store of this node."""
        nearest = approach(self.kept.open(key, vectors, [len(candidates)]).about(origin), candidates, before)
        return nearest, (nearest.potential, nearest.weights)

    def draw(self, nearest: Nearest, first_row: int, rate: float, key: np.ndarray) -> Int[np.ndarray, " m"]:
        return draw(nearest, first_row, rate, key)

    def accumulate(
        self, key: str, vectors: FileSlice | np.ndarray, origin: np.ndarray | None, centroids: list[np.ndarray]
    ) -> list[PartialSums]:
        return self.kept.open(key, vectors, [len(each) for each in centroids]).about(origin).accumulate(centroids)

    def assign(
        self, key: str, vectors: FileSlice | np.ndarray, origin: np.ndarray | None, centroids: list[np.ndarray]
    ) -> list[tuple[np.ndarray, float]]:
        """The last that a clustering asks for: a copy of an array on a GPU is given up."""
        return self.kept.last(key, vectors, [len(each) for each in centroids]).about(origin).assign(centroids)

    def place(
        self, key: str, vectors: FileSlice | np.ndarray, origin: np.ndarray | None, centroids: list[np.ndarray]
    ) -> list[Placed]:
        """As `assign`, with the ids in this node's object store; they end with the last reference, or the actor."""
        found = placed(self.assign(key, vectors, origin, centroids), centroids)
        return [replace(each, ids=ray.put(each.ids)) for each in found]

    def measure(
        self, key: str, vectors: FileSlice | np.ndarray, origin: np.ndarray | None, centroids: list[np.ndarray]
    ) -> Measured:
        """As `assign`."""
        return self.kept.last(key, vectors, [len(each) for each in centroids]).about(origin).measure(centroids)

    def closest(
        self,
        key: str,
        vectors: FileSlice | np.ndarray,
        origin: np.ndarray | None,
        centroids: list[np.ndarray],
        most: int,
    ) -> Closest:
        """Of this slice; under one set of centroids."""
        shard = self.kept.open(key, vectors, [len(each) for each in centroids]).about(origin)
        ((ids, squares),) = shard.measure(centroids)
        return closest_members(ids, squares, len(centroids[0]), most)

    def add(self, *parts: list[PartialSums]) -> list[PartialSums]:
        return add_sums(parts)


def shard_group(config: KMeansConfig) -> Group:
    """The k-means shard actors, which all trials of a sweep share."""
    return Group(config.num_shards, Bundle(config.cpus_per_shard, config.gpus_per_shard), "k-means shard")


def require_gpus(config: KMeansConfig) -> None:
    """Raise UserError where a shard asks for a GPU that nothing can use there; asks on a node that has one."""
    if config.gpus_per_shard > 0:
        there: Any = {"num_cpus": 0, "num_gpus": config.gpus_per_shard, "label_selector": config.node_labels}
        asking: Any = ray.remote(**there)(require_gpu)
        fetch(asking.remote(config.backend, config.gpus_per_shard))


def start_shard_actors(
    config: KMeansConfig,
    *,
    assign_method: AssignMethod = "exact",
    memory_bytes: int | None = None,
    num_clusters: Sequence[int] = (),
    deterministic: bool = False,
) -> list[Any]:
    """`num_shards` actors, spread over the nodes that carry the labels asked for.

    Args:
        assign_method: how the nearest centroid is found.
        memory_bytes: bound on each actor's own memory while it reads slices of files; None keeps them in memory.
        num_clusters: as for `KeptShards`.
        deterministic: as `train.deterministic` of the run that they serve.
    """
    resources = {"num_cpus": config.cpus_per_shard, "num_gpus": config.gpus_per_shard}
    actor: Any = ShardActor  # an actor's class, by its decorator
    options = actor.options(scheduling_strategy="SPREAD", label_selector=config.node_labels, **resources)
    return [
        options.remote(config, assign_method, memory_bytes, num_clusters, deterministic)
        for _ in range(config.num_shards)
    ]
