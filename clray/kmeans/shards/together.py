"""All shards of a clustering together, as the algorithm sees them; here those of one process."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt64

from clray.kmeans.closest import closest_members
from clray.kmeans.origin import Survey, join_surveys
from clray.kmeans.shards.nearest import Nearest, approach, draw
from clray.kmeans.shards.port import Measured, PartialSums, Placed, Shard, placed


@runtime_checkable
class Shards(Protocol):
    """What Lloyd's iterations and their starts ask of all shards, local or remote."""

    @property
    def num_vectors(self) -> int: ...

    @property
    def origin(self) -> np.ndarray | None:
        """The point that vectors and centroids are relative to, float32 or float64 [dim]; None is zero."""
        ...

    def about(self, origin: np.ndarray | None) -> "Shards":
        """The same shards relative to this point."""
        ...

    def holding(self, vectors: Float[np.ndarray, "n dim"], *, once: bool = False) -> "Shards":
        """Shards of these vectors instead, as they are, searched by the same processes; `once`: which keep no copy."""
        ...

    def survey(self, num_clusters: Sequence[int]) -> Survey:
        """Look through all vectors, in their own coordinates, once before searches of so many clusters."""
        ...

    def take(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m dim"]:
        """Vectors by their ascending row over all shards."""
        ...

    def approach(self, candidates: Float[np.ndarray, "_ dim"], before: Any | None) -> tuple[Any, float, np.ndarray]:
        """Search new candidates of k-means||, beside those of a former call.

        Args:
            before: what that call gave back first; None for the first candidates.

        Returns:
            The nearest candidate of each vector, kept where the vector lies; the sum of all squared distances to it;
            and the number of vectors nearest to each candidate, float64 [m].
        """
        ...

    def draw(self, nearest: Any, rate: float, key: UInt64[np.ndarray, "2"]) -> Int[np.ndarray, " m"]:
        """Rows over all shards, ascending, each with probability min(1, rate x squared distance), as the key says."""
        ...

    def accumulate(self, centroids: Sequence[np.ndarray]) -> list[PartialSums]:
        """Partial sums under each set of centroids, float32 [K, dim], added up over the shards."""
        ...

    def assign(self, centroids: Sequence[np.ndarray]) -> list[tuple[np.ndarray, float]]:
        """Nearest centroid of each vector in row order, int32 [N], and the inertia, under each set of centroids."""
        ...

    def place(self, centroids: Sequence[np.ndarray]) -> list[Placed]:
        """As `assign`, but of remote shards the ids stay where the vectors are."""
        ...

    def measure(self, centroids: Sequence[np.ndarray]) -> Measured:
        """Nearest centroid of each vector in row order, and its squared distance, under each set of centroids."""
        ...

    def closest(self, centroids: Float[np.ndarray, "k dim"], most: int) -> Int[np.ndarray, " m"]:
        """Rows of so many vectors of each cluster, those closest to its centroid; ascending, int64."""
        ...


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

    def holding(self, vectors: np.ndarray, *, once: bool = False) -> "LocalShards":  # noqa: ARG002 - none is made
        return LocalShards([self.shards[0].holding(vectors)])

    def survey(self, num_clusters: Sequence[int]) -> Survey:  # noqa: ARG002 - only a bound on memory asks
        return join_surveys([shard.survey() for shard in self.shards])

    def take(self, rows: np.ndarray) -> np.ndarray:
        parts = rows_by_slice(rows, self._starts)
        return np.concatenate([shard.take(part) for shard, part in zip(self.shards, parts, strict=True)])

    def approach(self, candidates: np.ndarray, before: list[Nearest] | None) -> tuple[list[Nearest], float, np.ndarray]:
        former: Sequence[Nearest | None] = before or [None] * len(self.shards)
        nearest = [approach(shard, candidates, each) for shard, each in zip(self.shards, former, strict=True)]
        return nearest, sum(each.potential for each in nearest), np.sum([each.weights for each in nearest], axis=0)

    def draw(self, nearest: list[Nearest], rate: float, key: np.ndarray) -> np.ndarray:
        firsts = self._starts[:-1].tolist()
        return join_rows([draw(each, first, rate, key) for each, first in zip(nearest, firsts, strict=True)], firsts)

    def accumulate(self, centroids: Sequence[np.ndarray]) -> list[PartialSums]:
        return add_sums([shard.accumulate(centroids) for shard in self.shards])

    def assign(self, centroids: Sequence[np.ndarray]) -> list[tuple[np.ndarray, float]]:
        return join_assignments([shard.assign(centroids) for shard in self.shards])

    def place(self, centroids: Sequence[np.ndarray]) -> list[Placed]:
        return placed(self.assign(centroids), centroids)

    def measure(self, centroids: Sequence[np.ndarray]) -> Measured:
        return join_measured([shard.measure(centroids) for shard in self.shards])

    def closest(self, centroids: np.ndarray, most: int) -> np.ndarray:
        ((ids, squares),) = self.measure([centroids])
        return closest_members(ids, squares, len(centroids), most).rows


def rows_by_slice(rows: np.ndarray, starts: np.ndarray) -> list[np.ndarray]:
    """Ascending rows over all slices, as rows of each slice; `starts` are the first rows, and their end."""
    edges = np.searchsorted(rows, starts)
    return [rows[a:b] - start for a, b, start in zip(edges[:-1], edges[1:], starts[:-1], strict=True)]


def join_rows(parts: Sequence[np.ndarray], firsts: Sequence[int]) -> np.ndarray:
    """Rows of each slice as rows over all slices; `firsts` are the first rows."""
    return np.concatenate([part + first for part, first in zip(parts, firsts, strict=True)])


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
