"""What Lloyd's iterations ask of one shard of the vectors, whoever searches it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from clray.kmeans.origin import Survey


@dataclass(frozen=True)
class PartialSums:
    """What one shard contributes to an iteration of one set of centroids.

    Attributes:
        sums: weighted sum of the vectors of each cluster, float64 [K, dim].
        counts: weight of each cluster, float64 [K]; its number of vectors where they are not weighted.
        inertia: weighted sum of squared L2 distances to the nearest centroid.
    """

    sums: np.ndarray
    counts: np.ndarray
    inertia: float

    def __add__(self, other: "PartialSums") -> "PartialSums":
        return PartialSums(self.sums + other.sums, self.counts + other.counts, self.inertia + other.inertia)

    @property
    def num_bytes(self) -> int:
        return self.sums.nbytes + self.counts.nbytes

    @property
    def imbalance(self) -> float:
        """Imbalance factor K * sum(n_k^2) / N^2; 1 is even (FAISS's definition)."""
        return len(self.counts) * float((self.counts**2).sum()) / max(float(self.counts.sum()), 1.0) ** 2


@dataclass(frozen=True)
class Placed:
    """An assignment whose ids stay with the shards.

    Attributes:
        ids: how these shards hand over the ids of their vectors: int32 [N], or object references, one for each slice.
        sizes: vectors per cluster, int64 [K].
        inertia: sum of squared L2 distances to the nearest centroid.
    """

    ids: Any
    sizes: np.ndarray
    inertia: float


def placed(assignments: Sequence[tuple[np.ndarray, float]], centroids: Sequence[np.ndarray]) -> list[Placed]:
    """What `assign` found under each set of centroids, in this process."""
    return [
        Placed(ids, np.bincount(ids, minlength=len(each)), inertia)
        for (ids, inertia), each in zip(assignments, centroids, strict=True)
    ]


Measured = list[tuple[np.ndarray, np.ndarray]]
"""Under each set of centroids the nearest of each vector, int32 [N], and its squared distance, float32 [N]."""


@runtime_checkable
class Shard(Protocol):
    """A slice of the vectors; centroids are float32 [K, dim], several sets of them in one pass."""

    def __len__(self) -> int:
        """Vectors."""
        ...

    def about(self, origin: np.ndarray | None) -> "Shard":
        """The same shard with its vectors relative to this point."""
        ...

    def holding(self, vectors: np.ndarray) -> "Shard":
        """A shard of these vectors instead, float32 and as they are, searched in the same way."""
        ...

    def survey(self) -> Survey:
        """Look through the vectors: rows that cannot be searched, and the sums of the others."""
        ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Copies of some vectors, by ascending row, float32 [m, dim]."""
        ...

    def accumulate(self, centroids: Sequence[np.ndarray]) -> list[PartialSums]:
        """Sums, counts and inertia under each set of centroids."""
        ...

    def assign(self, centroids: Sequence[np.ndarray]) -> list[tuple[np.ndarray, float]]:
        """For each set of centroids the nearest one of every vector, int32 [n], and the inertia."""
        ...

    def measure(self, centroids: Sequence[np.ndarray]) -> Measured:
        """For each set of centroids the nearest one of every vector, int32 [n], and its squared distance, float32."""
        ...
