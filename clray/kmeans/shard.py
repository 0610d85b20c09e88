"""One shard of the vectors: nearest centroid by FAISS, and the partial sums of Lloyd's update.

Knows one slice of the data and nothing of the other shards.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import faiss
import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from clray.kmeans.vectors import BLOCK_ROWS, VectorSlice, as_array


@dataclass(frozen=True)
class PartialSums:
    """What one shard contributes to an iteration.

    Attributes:
        sums: sum of the vectors of each cluster, float64 [K, dim].
        counts: vectors of each cluster, int64 [K].
        inertia: sum of squared L2 distances to the nearest centroid.
    """

    sums: np.ndarray
    counts: np.ndarray
    inertia: float

    def __add__(self, other: "PartialSums") -> "PartialSums":
        return PartialSums(self.sums + other.sums, self.counts + other.counts, self.inertia + other.inertia)


class FaissShard:
    """A slice of the vectors, searched in blocks so that a memory-mapped slice never has to fit in memory."""

    def __init__(self, vectors: VectorSlice, *, num_threads: int | None = None, use_gpu: bool = False) -> None:
        self.vectors = as_array(vectors)
        self._gpu = faiss.StandardGpuResources() if use_gpu and faiss.get_num_gpus() > 0 else None
        if num_threads is not None:
            faiss.omp_set_num_threads(num_threads)

    def __len__(self) -> int:
        return len(self.vectors)

    def take(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m dim"]:
        """Copies of some vectors, float32."""
        return np.array(self.vectors[rows], dtype=np.float32)

    def accumulate(self, centroids: Float[np.ndarray, "k dim"]) -> PartialSums:
        """Sums, counts and inertia of this shard's vectors under their nearest centroids."""
        num_clusters, dim = centroids.shape
        sums, counts, inertia = np.zeros((num_clusters, dim)), np.zeros(num_clusters, np.int64), 0.0
        for block, distances, ids in self._search(centroids):
            # A sparse product: 0.013 s where np.add.at takes 1.4 s (200,000 x 128 into 2,500 clusters).
            rows = np.arange(len(ids) + 1)
            members = sparse.csr_array((np.ones(len(ids)), ids, rows), shape=(len(ids), num_clusters))
            sums += members.T @ block.astype(np.float64)
            counts += np.bincount(ids, minlength=num_clusters)
            inertia += float(distances.sum(dtype=np.float64))
        return PartialSums(sums, counts, inertia)

    def assign(self, centroids: Float[np.ndarray, "k dim"]) -> tuple[Int[np.ndarray, " n"], float]:
        """The nearest centroid of each vector, int64 [n], and the inertia."""
        found = [(distances.sum(dtype=np.float64), ids) for _, distances, ids in self._search(centroids)]
        return np.concatenate([ids for _, ids in found]), float(sum(inertia for inertia, _ in found))

    def _search(self, centroids: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        for start in range(0, len(self.vectors), BLOCK_ROWS):
            block = np.ascontiguousarray(self.vectors[start : start + BLOCK_ROWS], dtype=np.float32)
            if self._gpu is not None:
                distances, ids = faiss.knn_gpu(self._gpu, block, centroids, 1)
            else:
                distances, ids = faiss.knn(block, centroids, 1)
            # FAISS computes |x|^2 - 2xc + |c|^2, which rounds to slightly below zero for equal points.
            yield block, np.maximum(distances[:, 0], 0), ids[:, 0]
