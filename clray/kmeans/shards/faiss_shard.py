"""One shard of the vectors: nearest centroid by FAISS, and the partial sums of Lloyd's update.

Knows one slice of the data and nothing of the other shards. All that touches FAISS is here.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import faiss
import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from clray.data.vector_files import to_float32
from clray.kmeans.memory import BlockPlan, work_rows
from clray.kmeans.options import AssignMethod, InitMethod
from clray.kmeans.origin import MAX_SQUARED_NORM, Survey
from clray.kmeans.shards.faiss_gpu import GpuSearch
from clray.kmeans.shards.port import PartialSums
from clray.kmeans.vectors.source import ArraySlice, VectorSlice

FAISS_VERSION: str = faiss.__version__


class FaissShard:
    """A slice of the vectors, searched in blocks so that a slice of files never has to fit in memory."""

    def __init__(
        self,
        vectors: VectorSlice | np.ndarray,
        *,
        plan: BlockPlan | None = None,
        weights: Float[np.ndarray, " n"] | None = None,
        assign_method: AssignMethod = "exact",
        num_threads: int | None = None,
        gpu: GpuSearch | None = None,
    ) -> None:
        """One slice.

        Args:
            plan: how much is read at a time; by default all is kept in memory.
            weights: one per vector, at least 0.
            num_threads: of FAISS, in a process that only searches; None leaves FAISS's settings alone.
            gpu: where to search; by default on the CPU.
        """
        self.vectors = ArraySlice(vectors) if isinstance(vectors, np.ndarray) else vectors
        self.weights = weights
        self.assign_method = assign_method
        self._plan = plan
        self._gpu = gpu
        self._resident: list[np.ndarray] = []
        """Blocks of a slice of files as they are stored, read once; the same list for the shard about any origin."""
        if num_threads is not None:
            faiss.omp_set_num_threads(num_threads)
            # The default of 4,096 queries per matrix product makes a result of 16 MiB, which no cache of a core holds:
            # 5 to 10 % slower than 1,024 on one core (100,000 x 128, K = 2,500).
            faiss.cvar.distance_compute_blas_query_bs = 1024

    def __len__(self) -> int:
        return len(self.vectors)

    def about(self, origin: Float[np.ndarray, " dim"] | None) -> "FaissShard":
        """The same shard with its vectors relative to this point."""
        moved = copy.copy(self)
        moved.vectors = self.vectors.about(origin)
        return moved

    def holding(self, vectors: Float[np.ndarray, "n dim"]) -> "FaissShard":
        """A shard of these vectors instead, searched in the same way."""
        other = copy.copy(self)
        other.vectors, other.weights, other._plan, other._resident = ArraySlice(vectors), None, None, []
        return other

    def survey(self) -> Survey:
        """Look through the vectors: rows that cannot be searched, and the sums of the others."""
        bad_rows, total, squares = [np.empty(0, np.int64)], np.zeros(self.vectors.dim), 0.0
        for start, chunk in self._chunks(self.vectors.dim):
            norms = np.einsum("ij,ij->i", chunk, chunk)
            is_good = norms <= MAX_SQUARED_NORM  # neither NaN nor infinity is
            if not is_good.all():
                bad_rows.append(start + np.flatnonzero(~is_good))
                chunk, norms = chunk[is_good], norms[is_good]
            total += chunk.sum(axis=0, dtype=np.float64)
            squares += float(norms.sum(dtype=np.float64))
        bad = np.concatenate(bad_rows)
        return Survey(bad, len(self) - len(bad), total, squares)

    def take(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m dim"]:
        """Copies of some vectors, by ascending row, float32."""
        return self.vectors.take(rows)

    def accumulate(self, centroids: Sequence[Float[np.ndarray, "_ dim"]]) -> list[PartialSums]:
        """Sums, counts and inertia under each set of centroids, in one pass over the vectors."""
        searches = [self._search(each) for each in centroids]
        sums = [np.zeros(each.shape) for each in centroids]
        counts = [np.zeros(len(each)) for each in centroids]
        inertia = [0.0] * len(centroids)
        for start, chunk in self._chunks(centroids[0].shape[1]):
            weights = np.ones(len(chunk)) if self.weights is None else self.weights[start : start + len(chunk)]
            norms = np.einsum("ij,ij->i", chunk, chunk)
            for i, search in enumerate(searches):
                distances, ids = search(chunk, norms)
                add_members(sums[i], chunk, ids, weights)
                counts[i] += np.bincount(ids, weights, minlength=len(counts[i]))
                # Not a dot product: BLAS would wake threads of its own for it, which then spin.
                inertia[i] += float((distances * weights).sum())
        return [PartialSums(*parts) for parts in zip(sums, counts, inertia, strict=True)]

    def assign(self, centroids: Sequence[Float[np.ndarray, "_ dim"]]) -> list[tuple[Int[np.ndarray, " n"], float]]:
        """For each set of centroids the nearest one of every vector, int32 [n], and the inertia."""
        ids = np.empty((len(centroids), len(self)), np.int32)
        inertia = [0.0] * len(centroids)
        for start, found in self._searched(centroids):
            for i, (distances, nearest) in enumerate(found):
                ids[i, start : start + len(nearest)] = nearest
                weights = 1.0 if self.weights is None else self.weights[start : start + len(nearest)]
                inertia[i] += float((distances * weights).sum())
        return list(zip(ids, inertia, strict=True))

    def measure(
        self, centroids: Sequence[Float[np.ndarray, "_ dim"]]
    ) -> list[tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]]:
        """For each set of centroids the nearest one of every vector, int32 [n], and its squared distance, float32."""
        # One array each, for with its parts it would take twice the memory.
        ids, squares = (np.empty((len(centroids), len(self)), dtype) for dtype in (np.int32, np.float32))
        for start, found in self._searched(centroids):
            for i, (distances, nearest) in enumerate(found):
                stop = start + len(nearest)
                ids[i, start:stop], squares[i, start:stop] = nearest, distances
        return list(zip(ids, squares, strict=True))

    def _searched(self, centroids: Sequence[np.ndarray]) -> Iterator[tuple[int, list[tuple[np.ndarray, np.ndarray]]]]:
        """For each chunk its first row, and under each set of centroids squared distances and ids."""
        searches = [self._search(each) for each in centroids]
        for start, chunk in self._chunks(centroids[0].shape[1]):
            norms = np.einsum("ij,ij->i", chunk, chunk)
            yield start, [search(chunk, norms) for search in searches]

    def _chunks(self, dim: int) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, vectors) small enough for the working arrays of a search to stay in the cache.

        Vectors with fewer dimensions than `dim` are filled up with zeros.
        """
        first, num_rows = 0, self._num_rows
        for block in self._blocks():
            for start in range(0, len(block), num_rows):
                chunk = block[start : start + num_rows]
                yield first, np.pad(chunk, ((0, 0), (0, dim - chunk.shape[1]))) if dim > chunk.shape[1] else chunk
                first += len(chunk)

    @property
    def _num_rows(self) -> int:
        """Vectors searched at a time."""
        return work_rows(self.vectors.dim, on_gpu=self._gpu is not None)

    def _blocks(self) -> Iterator[np.ndarray]:
        if isinstance(self.vectors, ArraySlice):
            yield from self.vectors.blocks(self._num_rows)
        elif self._plan is None or self._plan.is_resident:
            if not self._resident:
                self._resident.extend(self.vectors.stored_blocks(self._num_rows))
            for block in self._resident:
                yield to_float32(block, self.vectors.origin)
        else:
            yield from _read_ahead(self.vectors.blocks(self._plan.block_rows))

    def _search(self, centroids: np.ndarray) -> "Search":
        index = None if self.assign_method == "exact" else _approximate_index(centroids, self.assign_method)
        exact = partial(_nearest_on_cpu, centroids) if self._gpu is None else self._gpu.search_among(centroids)

        def search(chunk: np.ndarray, norms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            if index is None:
                found, ids = exact(chunk)
            else:
                found, ids = index.search(chunk, 1)
                missed = np.flatnonzero(ids[:, 0] < 0)
                if len(missed):
                    found[missed], ids[missed] = exact(chunk[missed])
            distances, ids = found[:, 0].astype(np.float64), ids[:, 0]
            lost = np.flatnonzero((ids < 0) | ~(distances > np.maximum(LOST_SHARE * norms, LEAST_DISTANCE)))
            if len(lost):
                distances[lost], ids[lost] = search_again(chunk[lost], centroids, ids[lost])
            return distances, ids

        return search


def _nearest_on_cpu(centroids: np.ndarray, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return faiss.knn(chunk, centroids, 1)


Search = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From vectors, float32 [m, dim], and their squared norms, float32 [m], to squared distances and ids."""

LOST_SHARE, LEAST_DISTANCE = 1e-4, 1e-30
"""FAISS computes |x|^2 - 2xc + |c|^2 in float32: few digits are left of a distance that is a smaller share of |x|^2, or
near the smallest number that float32 holds."""

TILE_ENTRIES = 2**20


def search_again(
    vectors: Float[np.ndarray, "m dim"], centroids: Float[np.ndarray, "k dim"], ids: Int[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """Squared distances, float64, and ids of the nearest centroids, by products in float64.

    Args:
        ids: what was found before; -1 for nothing. A vector that equals its centroid is not searched for again.
    """
    vectors, ids = vectors.astype(np.float64), np.maximum(ids, 0)
    distances = ((vectors - centroids[ids]) ** 2).sum(axis=1)
    num_columns = min(len(centroids), 1024)
    (differing,) = np.nonzero(distances)
    for part in np.array_split(differing, -(-len(differing) * num_columns // TILE_ENTRIES) or 1):
        # |x|^2 is the same for all centroids.
        least = np.full(len(part), np.inf)
        for start in range(0, len(centroids), num_columns):
            tile = centroids[start : start + num_columns].astype(np.float64)
            scores = np.einsum("ij,ij->i", tile, tile) - 2 * (vectors[part] @ tile.T)
            columns = scores.argmin(axis=1)
            scores = scores[np.arange(len(part)), columns]
            is_nearer = scores < least
            least[is_nearer], ids[part[is_nearer]] = scores[is_nearer], start + columns[is_nearer]
        distances[part] = ((vectors[part] - centroids[ids[part]]) ** 2).sum(axis=1)
    return distances, ids


def add_members(
    sums: Float[np.ndarray, "k dim"],
    vectors: Float[np.ndarray, "m dim"],
    ids: Int[np.ndarray, " m"],
    weights: Float[np.ndarray, " m"],
) -> None:
    """Add each weighted vector to the row of its cluster, in place, in float64.

    A sparse product: 14 ms where np.add.at takes 700 ms (100,000 x 128 into 1,000 clusters, one core). The float64
    weights make SciPy widen the vectors, in memory that it keeps; a copy made here costs twice the product.
    """
    rows: np.ndarray | slice = slice(None)
    num_rows = len(sums)
    if num_rows > len(ids):
        # The product is dense over its rows: with many clusters only those that occur.
        rows, ids = np.unique(ids, return_inverse=True)
        num_rows = len(rows)
    members = sparse.csr_array((weights, ids, np.arange(len(ids) + 1)), shape=(len(ids), num_rows))
    sums[rows] += members.T @ vectors


def spread_centroids(
    sample: Float[np.ndarray, "m dim"], num_clusters: int, method: InitMethod, seed: int
) -> Float[np.ndarray, "k dim"]:
    """Start centroids by FAISS: k-means++, or its approximation by Markov chains, AFK-MC2.

    Source: faiss `ClusteringInitialization.cpp`.
    """
    init = faiss.ClusteringInitialization(  # type: ignore[attr-defined]  # its stubs leave it out
        sample.shape[1], num_clusters
    )
    init.seed = seed % 2**31
    init.method = (
        faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS if method == "kmeans++" else faiss.ClusteringInitMethod_AFK_MC2
    )
    centroids = np.empty((num_clusters, sample.shape[1]), np.float32)
    init.init_centroids(len(sample), faiss.swig_ptr(np.ascontiguousarray(sample)), faiss.swig_ptr(centroids))
    return centroids


def _approximate_index(centroids: np.ndarray, method: AssignMethod) -> faiss.Index:
    """An index over many centroids that looks at a part of them: at an eighth of the lists, or along a graph."""
    num_clusters, dim = centroids.shape
    if method == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, 32)
        graph.hnsw.efSearch = 64
        graph.add(centroids)
        return graph
    num_lists = max(1, min(int(4 * num_clusters**0.5), num_clusters // 39))
    lists = faiss.IndexIVFFlat(faiss.IndexFlatL2(dim), dim, num_lists)
    lists.nprobe = max(4, num_lists // 8)
    lists.train(centroids)
    lists.add(centroids)
    return lists


def _read_ahead(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same blocks, the next one being read while the last one is searched."""
    with ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(next, blocks, None)
        while (block := upcoming.result()) is not None:
            upcoming = reader.submit(next, blocks, None)
            yield block
