"""Lloyd's iterations over any shards: start, empty-cluster repair, redo, warm start, stop.

Several sets of centroids (granularities, and starts of each) go through one pass over the vectors together. Never
learns whether the shards are local or remote.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from clray.kmeans.empty import fill_empty
from clray.kmeans.options import KMeansOptions
from clray.kmeans.origin import Survey, join_surveys
from clray.kmeans.shards.faiss_shard import spread_centroids
from clray.kmeans.shards.port import Measured, PartialSums, Shard
from clray.kmeans.vectors.source import check_num_clusters

SAMPLE_PER_CLUSTER = 64


@runtime_checkable
class Shards(Protocol):
    """All shards together, as the algorithm sees them."""

    @property
    def num_vectors(self) -> int: ...

    @property
    def origin(self) -> np.ndarray | None:
        """The point that vectors and centroids are relative to, float32 or float64 [dim]; None is zero."""
        ...

    def about(self, origin: np.ndarray | None) -> "Shards":
        """The same shards relative to this point."""
        ...

    def holding(self, vectors: Float[np.ndarray, "n dim"]) -> "Shards":
        """Shards of these vectors instead, as they are, searched by the same processes."""
        ...

    def survey(self, num_clusters: Sequence[int]) -> Survey:
        """Look through all vectors, in their own coordinates, once before searches of so many clusters."""
        ...

    def take(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m dim"]:
        """Vectors by their ascending row over all shards."""
        ...

    def accumulate(self, centroids: Sequence[np.ndarray]) -> list[PartialSums]:
        """Partial sums under each set of centroids, float32 [K, dim], added up over the shards."""
        ...

    def assign(self, centroids: Sequence[np.ndarray]) -> list[tuple[np.ndarray, float]]:
        """Nearest centroid of each vector in row order, int32 [N], and the inertia, under each set of centroids."""
        ...

    def measure(self, centroids: Sequence[np.ndarray]) -> Measured:
        """Nearest centroid of each vector in row order, and its squared distance, under each set of centroids."""
        ...


@dataclass(frozen=True)
class Clustering:
    """The result of k-means; ids and inertia belong to these centroids.

    Attributes:
        centroids: float32 [K, dim]; float64 where float64 vectors lie far from the origin.
        ids: nearest centroid of each vector, int32 [N]; -1 for a vector that was left out.
        inertia: sum of squared L2 distances to the nearest centroid.
        history: inertia before each update.
        network_bytes: what crossed the network between nodes for this clustering and those computed with it.
    """

    centroids: np.ndarray
    ids: np.ndarray
    inertia: float
    history: list[float] = field(default_factory=list)
    network_bytes: int = 0

    @property
    def num_clusters(self) -> int:
        return len(self.centroids)

    @property
    def num_iterations(self) -> int:
        return len(self.history)

    @property
    def sizes(self) -> np.ndarray:
        """Vectors per cluster, int64 [K]."""
        return np.bincount(self.ids[self.ids >= 0], minlength=self.num_clusters)


@dataclass
class Descent:
    """One set of centroids on its way down: a granularity, or one start of it."""

    redo: int
    centroids: np.ndarray
    history: list[float] = field(default_factory=list)
    is_done: bool = False

    @property
    def num_clusters(self) -> int:
        return len(self.centroids)


OnIteration = Callable[[Shards, list[Descent], list[PartialSums]], None]
"""Called after each update with the shards, all descents, and the sums of those that were still under way."""


def lloyd(
    shards: Shards,
    num_clusters: Sequence[int],
    options: KMeansOptions | None = None,
    *,
    initial: Sequence[np.ndarray] | None = None,
    descents: list[Descent] | None = None,
    on_iteration: OnIteration | None = None,
) -> list[Clustering]:
    """K-means by Lloyd's algorithm on every vector, for each number of clusters in the same passes.

    Args:
        shards: the vectors.
        num_clusters: K of each granularity.
        options: how to iterate.
        initial: for each granularity the centroids to start from, such as those of the previous clustering.
        descents: the state of an interrupted call, to resume from.
        on_iteration: progress and checkpoints.

    Returns:
        A clustering per granularity. The best of several starts is the one whose last update began at the lowest
        inertia, as FAISS judges.

    Raises:
        UserError: more clusters than vectors, or fewer than one.
    """
    options = options or KMeansOptions()
    check_num_clusters(num_clusters, shards.num_vectors)
    if descents is None:
        descents = _start(shards, num_clusters, options, initial)
    while open_descents := [descent for descent in descents if not descent.is_done]:
        sums = shards.accumulate([descent.centroids for descent in open_descents])
        for descent, each in zip(open_descents, sums, strict=True):
            _update(descent, each, options)
        if on_iteration is not None:
            on_iteration(shards, descents, sums)
    best = [_best([d for d in descents if d.num_clusters == k]) for k in num_clusters]
    assigned = shards.assign([descent.centroids for descent in best])
    return [
        Clustering(descent.centroids, ids, inertia, descent.history)
        for descent, (ids, inertia) in zip(best, assigned, strict=True)
    ]


def _best(starts: Sequence[Descent]) -> Descent:
    """The first start among those of the lowest inertia; rounding, which differs with the shards, decides nothing."""
    least = min(each.history[-1] for each in starts)
    return next(each for each in starts if each.history[-1] <= least * (1 + 1e-9))


def _start(
    shards: Shards, num_clusters: Sequence[int], options: KMeansOptions, initial: Sequence[np.ndarray] | None
) -> list[Descent]:
    if initial is not None:
        return [Descent(0, np.ascontiguousarray(centroids, dtype=np.float32)) for centroids in initial]
    return [
        Descent(redo, start_centroids(shards, k, options, redo))
        for k in num_clusters
        for redo in range(options.num_redos)
    ]


def start_centroids(shards: Shards, num_clusters: int, options: KMeansOptions, redo: int) -> np.ndarray:
    """Centroids to start from, float32 [K, dim]; the same for any number of shards."""
    generator = np.random.default_rng((options.seed, redo))
    num_taken = num_clusters if options.init == "random" else SAMPLE_PER_CLUSTER * num_clusters
    num_taken = min(num_taken, shards.num_vectors)
    taken = shards.take(np.sort(generator.choice(shards.num_vectors, num_taken, replace=False)))
    if options.init != "random":
        return spread_centroids(taken, num_clusters, options.init, seed=int(generator.integers(2**31)))
    return _unit(taken).astype(np.float32) if options.spherical else taken


def _update(descent: Descent, sums: PartialSums, options: KMeansOptions) -> None:
    """Move the centroids, and decide whether that was the last time."""
    # Derived from the iteration, so that an interrupted clustering continues as it would have.
    generator = np.random.default_rng((options.seed, descent.redo, len(descent.history)))
    before = descent.centroids
    descent.history.append(sums.inertia)
    descent.centroids = update_centroids(before, sums, generator, spherical=options.spherical)
    has_settled = len(descent.history) > 1 and bool(
        descent.history[-2] - descent.history[-1] <= options.tolerance * descent.history[-2] and sums.counts.all()
    )
    # Equal centroids mean that no vector has changed its cluster.
    has_stopped = np.array_equal(before, descent.centroids) or sums.inertia == 0
    descent.is_done = len(descent.history) >= options.num_iterations or has_settled or bool(has_stopped)


def update_centroids(
    centroids: Float[np.ndarray, "k dim"], sums: PartialSums, generator: np.random.Generator, *, spherical: bool
) -> Float[np.ndarray, "k dim"]:
    """The mean of each cluster; an empty cluster takes half of a large one, where there are vectors enough."""
    means: np.ndarray = sums.sums / np.where(sums.counts > 0, sums.counts, 1.0)[:, None]
    is_empty = sums.counts == 0
    if sums.counts.sum() > len(means):
        fill_empty(means, sums.counts, is_empty, generator)
    else:
        means[is_empty] = centroids[is_empty]
    return (_unit(means) if spherical else means).astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    unit: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


class LocalShards:
    """Shards in this process, searched one after the other."""

    def __init__(self, shards: Sequence[Shard], origin: np.ndarray | None = None) -> None:
        """Args: `origin` is the point that the shards' vectors are relative to."""
        self.shards, self.origin = shards, origin
        self._starts = np.cumsum([0, *map(len, shards)])

    @property
    def num_vectors(self) -> int:
        return int(self._starts[-1])

    def about(self, origin: np.ndarray | None) -> "LocalShards":
        if origin is self.origin:  # what the shards keep in memory stays good
            return self
        return LocalShards([shard.about(origin) for shard in self.shards], origin)

    def holding(self, vectors: np.ndarray) -> "LocalShards":
        return LocalShards([self.shards[0].holding(vectors)])

    def survey(self, num_clusters: Sequence[int]) -> Survey:  # noqa: ARG002 - only a bound on memory asks
        return join_surveys([shard.survey() for shard in self.shards])

    def take(self, rows: np.ndarray) -> np.ndarray:
        parts = rows_by_slice(rows, self._starts)
        return np.concatenate([shard.take(part) for shard, part in zip(self.shards, parts, strict=True)])

    def accumulate(self, centroids: Sequence[np.ndarray]) -> list[PartialSums]:
        return add_sums([shard.accumulate(centroids) for shard in self.shards])

    def assign(self, centroids: Sequence[np.ndarray]) -> list[tuple[np.ndarray, float]]:
        return join_assignments([shard.assign(centroids) for shard in self.shards])

    def measure(self, centroids: Sequence[np.ndarray]) -> Measured:
        return join_measured([shard.measure(centroids) for shard in self.shards])


def rows_by_slice(rows: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
    """Ascending rows over all slices, as rows of each slice; `starts` are the first rows, and their end."""
    edges = np.searchsorted(rows, starts)
    return [rows[a:b] - start for a, b, start in zip(edges[:-1], edges[1:], starts[:-1], strict=True)]


def add_sums(parts: Sequence[list[PartialSums]]) -> list[PartialSums]:
    """The sums of each set of centroids over the shards, added in the order of the shards."""
    return [sum(each[1:], start=each[0]) for each in zip(*parts, strict=True)]


def join_assignments(parts: Sequence[list[tuple[np.ndarray, float]]]) -> list[tuple[np.ndarray, float]]:
    """The assignments of each set of centroids over the shards, in row order, and their inertia."""
    return [
        (np.concatenate([ids for ids, _ in each]), float(sum(inertia for _, inertia in each)))
        for each in zip(*parts, strict=True)
    ]


def join_measured(parts: Sequence[Measured]) -> Measured:
    """Ids and squared distances under each set of centroids over the shards, in row order."""
    return [
        (np.concatenate([ids for ids, _ in each]), np.concatenate([distances for _, distances in each]))
        for each in zip(*parts, strict=True)
    ]
