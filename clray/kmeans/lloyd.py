"""Lloyd's iterations over any shards: redo, warm start, stop.

Several sets of centroids (granularities, and starts of each) go through one pass over the vectors together. Never
learns whether the shards are local or remote.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from clray.kmeans.options import KMeansOptions
from clray.kmeans.shards.port import PartialSums
from clray.kmeans.shards.together import Shards
from clray.kmeans.starts import start_centroids
from clray.kmeans.update import update_centroids
from clray.kmeans.vectors.source import check_num_clusters


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


@dataclass(frozen=True)
class Level:
    """A granularity without its ids.

    Attributes:
        centroids: float32 [K, dim].
        sizes: vectors per cluster, int64 [K].
        inertia, history: as those of a `Clustering`.
    """

    centroids: np.ndarray
    sizes: np.ndarray
    inertia: float
    history: list[float] = field(default_factory=list)

    def with_ids(self, ids: np.ndarray) -> Clustering:
        """The clustering of the vectors that these ids are of."""
        return Clustering(self.centroids, ids, self.inertia, self.history)


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
    """K-means by Lloyd's algorithm on every vector; the arguments are those of `descend`.

    Returns:
        A clustering per granularity.

    Raises:
        UserError: as `descend`.
    """
    best = descend(shards, num_clusters, options, initial=initial, descents=descents, on_iteration=on_iteration)
    assigned = shards.assign([descent.centroids for descent in best])
    return [
        Clustering(descent.centroids, ids, inertia, descent.history)
        for descent, (ids, inertia) in zip(best, assigned, strict=True)
    ]


def descend(
    shards: Shards,
    num_clusters: Sequence[int],
    options: KMeansOptions | None = None,
    *,
    initial: Sequence[np.ndarray] | None = None,
    descents: list[Descent] | None = None,
    on_iteration: OnIteration | None = None,
) -> list[Descent]:
    """Lloyd's iterations on every vector, for each number of clusters in the same passes; no vector gets an id.

    Args:
        shards: the vectors.
        num_clusters: K of each granularity.
        options: how to iterate.
        initial: for each granularity the centroids to start from, such as those of the previous clustering.
        descents: the state of an interrupted call, to resume from.
        on_iteration: progress and checkpoints.

    Returns:
        The best start of each granularity: the one whose last update began at the lowest inertia, as FAISS judges.

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
    return [best_start([d for d in descents if d.num_clusters == k]) for k in num_clusters]


def best_start(starts: Sequence[Descent]) -> Descent:
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
