"""One shard of vectors that lie on a device: the same answers as `FaissShard`, by plain torch.

Vectors stay in their own type and are widened a block at a time. Centroids go to the device once an iteration; sums,
counts and inertia come back once.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clray.kmeans.origin import MAX_SQUARED_NORM, Survey
from clray.kmeans.shards.port import Measured, PartialSums
from clray.kmeans.shards.torch_kernels import (
    Centroids,
    Nearest,
    adder,
    block_rows,
    full_float32,
    nearest_by_tiles,
    nearest_in_float64,
    squared_distances,
    upload,
)
from clray.kmeans.vectors.tensors import TensorRows, tensor_of

LOST_SHARE, LEAST_DISTANCE = 1e-4, 1e-30
"""As in `faiss_shard`: |c|^2 - 2xc in float32 tells little of a distance that is a smaller share of |x|^2."""
ChooseKernel = Callable[[Tensor, Centroids], Nearest]
"""From a first block and its centroids to the search for all blocks."""


def by_tiles(vectors: Tensor, centroids: Centroids) -> Nearest:  # noqa: ARG001 - a ChooseKernel
    """Always plain torch."""
    return nearest_by_tiles


@dataclass(frozen=True)
class _Found:
    """Of a block under one set of centroids: ids, int64 [m], and squared distances, float64 [m]."""

    ids: Tensor
    distances: Tensor


class TorchShard:
    """Vectors in a tensor, searched where they lie."""

    def __init__(self, vectors: TensorRows, choose_kernel: ChooseKernel = by_tiles) -> None:
        self.vectors = vectors
        self._choose_kernel = choose_kernel
        self._add = adder(vectors.device)

    def __len__(self) -> int:
        return len(self.vectors)

    def about(self, origin: np.ndarray | None) -> "TorchShard":
        """The same shard with its vectors relative to this point."""
        moved = copy.copy(self)
        moved.vectors = self.vectors.about(origin)
        return moved

    def holding(self, vectors: np.ndarray) -> "TorchShard":
        """A shard of these vectors instead, on the same device."""
        return TorchShard(tensor_of(vectors, self.vectors.device), self._choose_kernel)

    def survey(self) -> Survey:
        """Look through the vectors: rows that cannot be searched, and the sums of the others."""
        dim, device = self.vectors.dim, self.vectors.device
        total, squares = (torch.zeros(n, dtype=torch.float64, device=device) for n in (dim, 1))
        bad_rows = []
        for start, block in self._blocks(dim):
            norms = block.square().sum(1)
            is_good = norms <= MAX_SQUARED_NORM  # neither NaN nor infinity is
            bad_rows.append(start + (~is_good).nonzero()[:, 0])
            # Rows that are left out are zeros here: NaN times 0 is NaN.
            total += block.masked_fill(~is_good[:, None], 0).sum(0, dtype=torch.float64)
            squares += norms.masked_fill(~is_good, 0).sum(dtype=torch.float64)
        bad = torch.cat(bad_rows).cpu().numpy() if bad_rows else np.empty(0, np.int64)
        return Survey(bad, len(self) - len(bad), total.cpu().numpy(), float(squares))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Copies of some vectors, by ascending row, float32 [m, dim]."""
        return self.vectors.take(rows)

    def accumulate(self, centroids: Sequence[np.ndarray]) -> list[PartialSums]:
        """Sums, counts and inertia under each set of centroids, in one pass over the vectors."""
        device = self.vectors.device
        # The last column counts.
        totals = [torch.zeros(len(c), c.shape[1] + 1, dtype=torch.float64, device=device) for c in centroids]
        inertia = torch.zeros(len(centroids), dtype=torch.float64, device=device)
        for block, found in self._searched(centroids):
            rows = F.pad(block.double(), (0, 1), value=1.0)
            for i, each in enumerate(found):
                self._add(totals[i], rows, each.ids)
                inertia[i] += each.distances.sum()
        sums = [each.cpu().numpy() for each in totals]
        return [
            PartialSums(np.ascontiguousarray(each[:, :-1]), each[:, -1].copy(), float(total))
            for each, total in zip(sums, inertia.cpu(), strict=True)
        ]

    def assign(self, centroids: Sequence[np.ndarray]) -> list[tuple[np.ndarray, float]]:
        """For each set of centroids the nearest one of every vector, int32 [n], and the inertia."""
        inertia = torch.zeros(len(centroids), dtype=torch.float64, device=self.vectors.device)
        ids = self._new(centroids, torch.int32)
        start = 0
        for block, found in self._searched(centroids):
            stop = start + len(block)
            for i, each in enumerate(found):
                ids[i, start:stop] = each.ids
                inertia[i] += each.distances.sum()
            start = stop
        return list(zip(ids.cpu().numpy(), inertia.tolist(), strict=True))

    def measure(self, centroids: Sequence[np.ndarray]) -> Measured:
        """For each set of centroids the nearest one of every vector, int32 [n], and its squared distance, float32."""
        ids, squares = self._new(centroids, torch.int32), self._new(centroids, torch.float32)
        start = 0
        for block, found in self._searched(centroids):
            stop = start + len(block)
            for i, each in enumerate(found):
                ids[i, start:stop], squares[i, start:stop] = each.ids, each.distances
            start = stop
        return list(zip(ids.cpu().numpy(), squares.cpu().numpy(), strict=True))

    def _new(self, centroids: Sequence[np.ndarray], dtype: torch.dtype) -> Tensor:
        return torch.empty(len(centroids), len(self), dtype=dtype, device=self.vectors.device)

    def _searched(self, centroids: Sequence[np.ndarray]) -> Iterator[tuple[Tensor, list[_Found]]]:
        """Each block, and what is found for it under each set of centroids."""
        sets = [upload(each, self.vectors.device) for each in centroids]
        kernels: list[Nearest] = []
        with full_float32():
            for _, block in self._blocks(centroids[0].shape[1]):
                kernels = kernels or [self._choose_kernel(block, each) for each in sets]
                norms = block.square().sum(1)
                yield block, [_search(block, norms, each, kernel) for each, kernel in zip(sets, kernels, strict=True)]

    def _blocks(self, dim: int) -> Iterator[tuple[int, Tensor]]:
        """(first row, vectors); those with fewer dimensions than `dim` are filled up with zeros."""
        num_rows = block_rows(self.vectors.device)
        for start in range(0, len(self), num_rows):
            block = self.vectors.block(start, min(start + num_rows, len(self)))
            yield start, F.pad(block, (0, dim - block.shape[1])) if dim > block.shape[1] else block


def _search(block: Tensor, norms: Tensor, centroids: Centroids, nearest: Nearest) -> _Found:
    ids = nearest(block, centroids)
    distances = squared_distances(block, centroids.points[ids])
    # A vector that equals its centroid has found it.
    is_lost = ~(distances > (LOST_SHARE * norms).clamp(min=LEAST_DISTANCE)) & (distances != 0)
    lost = is_lost.nonzero()[:, 0]
    if not len(lost):
        return _Found(ids, distances.double())
    exact = distances.double()
    ids[lost] = nearest_in_float64(block[lost], centroids)
    exact[lost] = squared_distances(block[lost].double(), centroids.points[ids[lost]].double())
    return _Found(ids, exact)
