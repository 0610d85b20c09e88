"""Lloyd's iterations over any shards: start, empty-cluster repair, redo, warm start, stop.

Never learns whether the shards are local or remote.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from clray.kmeans.shard import FaissShard, PartialSums
from clray.kmeans.vectors import check_num_clusters


@runtime_checkable
class Shards(Protocol):
    """All shards together, as the algorithm sees them."""

    @property
    def num_vectors(self) -> int: ...

    def take(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m dim"]:
        """Vectors by their row over all shards."""
        ...

    def accumulate(self, centroids: Float[np.ndarray, "k dim"]) -> PartialSums:
        """Partial sums, added up over the shards."""
        ...

    def assign(self, centroids: Float[np.ndarray, "k dim"]) -> tuple[Int[np.ndarray, " n"], float]:
        """Nearest centroid of each vector in row order, and the inertia."""
        ...


@dataclass(frozen=True)
class Clustering:
    """The result of k-means; ids and inertia belong to these centroids.

    Attributes:
        centroids: float32 [K, dim].
        ids: nearest centroid of each vector, int64 [N].
        inertia: sum of squared L2 distances to the nearest centroid.
        history: inertia before each update.
    """

    centroids: np.ndarray
    ids: np.ndarray
    inertia: float
    history: list[float] = field(default_factory=list)

    @property
    def num_iterations(self) -> int:
        return len(self.history)


OnIteration = Callable[[int, PartialSums], None]


def lloyd(
    shards: Shards,
    num_clusters: int,
    *,
    num_iterations: int = 20,
    num_redos: int = 1,
    seed: int = 0,
    spherical: bool = False,
    tolerance: float = 1e-6,
    initial: Float[np.ndarray, "k dim"] | None = None,
    on_iteration: OnIteration | None = None,
) -> Clustering:
    """K-means by Lloyd's algorithm on every vector.

    Args:
        shards: the vectors.
        num_clusters: K.
        num_iterations: updates at most; stops when the inertia falls by less than `tolerance` of itself.
        num_redos: starts from different random vectors, of which the lowest inertia wins; ignored with `initial`.
        seed: of the random start and of the repair of empty clusters.
        spherical: normalise the centroids to unit length after each update.
        tolerance: relative fall of the inertia at which to stop; 0 stops when nothing improves.
        initial: centroids to start from, such as those of the previous clustering.
        on_iteration: called after each search with the iteration, from 1, and its sums.

    Raises:
        UserError: more clusters than vectors, or fewer than one.
    """
    check_num_clusters(num_clusters, shards.num_vectors)
    best: Clustering | None = None
    num_done = 0

    def on_update(sums: PartialSums) -> None:
        nonlocal num_done
        num_done += 1
        if on_iteration is not None:
            on_iteration(num_done, sums)

    for redo in range(1 if initial is not None else num_redos):
        generator = np.random.default_rng((seed, redo))
        centroids = initial
        if centroids is None:
            centroids = shards.take(np.sort(generator.choice(shards.num_vectors, num_clusters, replace=False)))
        centroids, history = _iterate(shards, centroids, num_iterations, generator, spherical, tolerance, on_update)
        ids, inertia = shards.assign(centroids)
        if best is None or inertia < best.inertia:
            best = Clustering(centroids, ids, inertia, history)
    assert best is not None, "there is at least one start"
    return best


def _iterate(
    shards: Shards,
    centroids: np.ndarray,
    num_iterations: int,
    generator: np.random.Generator,
    spherical: bool,
    tolerance: float,
    on_update: Callable[[PartialSums], None],
) -> tuple[np.ndarray, list[float]]:
    history: list[float] = []
    centroids = np.ascontiguousarray(centroids, dtype=np.float32)
    for _ in range(num_iterations):
        sums = shards.accumulate(centroids)
        history.append(sums.inertia)
        centroids = update_centroids(centroids, sums, generator, spherical=spherical)
        on_update(sums)
        if len(history) > 1 and history[-2] - history[-1] <= tolerance * history[-2] and sums.counts.all():
            break
    return centroids, history


def update_centroids(
    centroids: Float[np.ndarray, "k dim"], sums: PartialSums, generator: np.random.Generator, *, spherical: bool
) -> Float[np.ndarray, "k dim"]:
    """The mean of each cluster; an empty cluster takes half of a large one.

    The repair follows faiss `Clustering.cpp` (split_clusters): a donor is drawn with probability growing with its size,
    and the two centroids move apart by 1/1024 along alternating signs, so that the next search divides its points.
    """
    means = sums.sums / np.maximum(sums.counts, 1)[:, None]
    sizes = sums.counts.astype(np.float64)
    if sums.counts.sum() > len(sizes):
        signs = np.where(np.arange(means.shape[1]) % 2, -1.0, 1.0) / 1024
        for empty in np.flatnonzero(sums.counts == 0):
            weights = np.maximum(sizes - 1, 0)
            donor = generator.choice(len(sizes), p=weights / weights.sum())
            means[empty] = means[donor] * (1 + signs)
            means[donor] = means[donor] * (1 - signs)
            sizes[empty] = sizes[donor] = sizes[donor] / 2
    else:
        means[sums.counts == 0] = centroids[sums.counts == 0]
    if spherical:
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
    return means.astype(np.float32)


def write_clustering(clustering: Clustering, folder: Path, about: dict[str, Any]) -> dict[str, Any]:
    """Write centroids.npy, assignments.npy and clustering.json; returns what the last one holds.

    Args:
        about: where the vectors came from and how they were clustered; kept in clustering.json.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "centroids.npy", clustering.centroids)
    np.save(folder / "assignments.npy", clustering.ids)
    sizes = np.bincount(clustering.ids, minlength=len(clustering.centroids))
    summary = {
        **about,
        "num_vectors": len(clustering.ids),
        "dim": clustering.centroids.shape[1],
        "num_clusters": len(sizes),
        "num_nonempty": int((sizes > 0).sum()),
        "smallest_cluster": int(sizes.min()),
        "largest_cluster": int(sizes.max()),
        "inertia": clustering.inertia,
        "num_iterations": clustering.num_iterations,
        "inertia_history": clustering.history,
    }
    (folder / "clustering.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    return summary


class LocalShards:
    """Shards in this process, searched one after the other."""

    def __init__(self, shards: Sequence[FaissShard]) -> None:
        self.shards = shards
        self._starts = np.cumsum([0, *map(len, shards)])

    @property
    def num_vectors(self) -> int:
        return int(self._starts[-1])

    def take(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m dim"]:
        pieces = [
            shard.take(rows[(rows >= start) & (rows < start + len(shard))] - start)
            for shard, start in zip(self.shards, self._starts, strict=False)
        ]
        return np.concatenate(pieces)

    def accumulate(self, centroids: Float[np.ndarray, "k dim"]) -> PartialSums:
        total = self.shards[0].accumulate(centroids)
        for shard in self.shards[1:]:
            total = total + shard.accumulate(centroids)
        return total

    def assign(self, centroids: Float[np.ndarray, "k dim"]) -> tuple[Int[np.ndarray, " n"], float]:
        found = [shard.assign(centroids) for shard in self.shards]
        return np.concatenate([ids for ids, _ in found]), float(sum(inertia for _, inertia in found))
