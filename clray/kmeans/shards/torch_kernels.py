"""The two products of Lloyd's algorithm on the tensors of any device: nearest centroids, and sums of clusters.

The products of vectors and centroids run in full float32: with TF32 an id in a thousand is not that of the nearest.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

TILE_ENTRIES = {"cpu": 2**24, "cuda": 2**27}
"""Scores held at a time: 64 MiB on a CPU, 512 MiB on a GPU."""
BLOCK_ROWS = {"cpu": 8192, "cuda": 65_536}
"""Vectors widened to float32 at a time."""
EXACT_ENTRIES = 2**22


@dataclass(frozen=True)
class Centroids:
    """A set of centroids on the device.

    Attributes:
        points: float32 [K, dim].
        squares: their squared norms, float32 [K].
    """

    points: Tensor
    squares: Tensor

    def __len__(self) -> int:
        return len(self.points)


Nearest = Callable[[Tensor, Centroids], Tensor]
"""From vectors, float32 [m, dim], to the nearest centroid of each, int64 [m]."""


def upload(centroids: Float[np.ndarray, "k dim"], device: torch.device) -> Centroids:
    """Centroids on the device, for as many searches as there are blocks."""
    points = torch.from_numpy(np.ascontiguousarray(centroids, np.float32)).to(device)
    return Centroids(points, (points * points).sum(1))


def nearest_by_tiles(vectors: Float[Tensor, "m dim"], centroids: Centroids) -> Int[Tensor, " m"]:
    """The first of the nearest centroids of each vector, by products of tiles with a running minimum."""
    num_columns = max(1, TILE_ENTRIES[_kind(vectors)] // max(len(vectors), 1))
    least: Tensor | None = None
    ids = torch.zeros(len(vectors), dtype=torch.int64, device=vectors.device)
    for start in range(0, len(centroids), num_columns):
        points, squares = centroids.points[start : start + num_columns], centroids.squares[start : start + num_columns]
        # |x|^2 is the same for all centroids.
        values, columns = torch.addmm(squares, vectors, points.T, alpha=-2).min(1)
        if least is None:
            least, ids = values, columns
        else:
            is_nearer = values < least
            least = torch.where(is_nearer, values, least)
            ids = torch.where(is_nearer, columns + start, ids)
    return ids


def nearest_in_float64(vectors: Float[Tensor, "m dim"], centroids: Centroids) -> Int[Tensor, " m"]:
    """As `nearest_by_tiles`, by products in float64."""
    points = centroids.points.double()
    wide = Centroids(points, (points * points).sum(1))
    parts = vectors.split(max(1, EXACT_ENTRIES // len(centroids)))
    return torch.cat([(wide.squares - 2 * (part.double() @ points.T)).argmin(1) for part in parts])


def squared_distances(vectors: Float[Tensor, "m dim"], points: Float[Tensor, "m dim"]) -> Float[Tensor, " m"]:
    """|x - c|^2 of each pair, from the differences: no digits are lost far from the origin."""
    return (vectors - points).square_().sum(1)


def add_in_order(totals: Float[Tensor, "k columns"], rows: Float[Tensor, "m columns"], ids: Int[Tensor, " m"]) -> None:
    """Add each row to the row of its cluster, in place, one after the other; on a CPU."""
    totals.index_add_(0, ids, rows)


def add_by_segments(
    totals: Float[Tensor, "k columns"], rows: Float[Tensor, "m columns"], ids: Int[Tensor, " m"]
) -> None:
    """The same by a stable sort and a sum over each cluster's run: the order, and so the sum, is the same each time.

    Atomic additions, which `index_add_` makes on a GPU, come in any order.
    """
    order = ids.argsort(stable=True)
    lengths = torch.zeros(len(totals), dtype=torch.int64, device=ids.device).index_add_(0, ids, torch.ones_like(ids))
    # `unsafe` leaves out a check of the lengths that would wait for the GPU.
    totals += torch.segment_reduce(rows[order], "sum", lengths=lengths, axis=0, initial=0, unsafe=True)


def adder(device: torch.device) -> Callable[[Tensor, Tensor, Tensor], None]:
    """The quicker of the two on this device whose result does not depend on chance."""
    return add_in_order if device.type == "cpu" else add_by_segments


def block_rows(device: torch.device) -> int:
    """Vectors to widen at a time on this device."""
    return BLOCK_ROWS.get(device.type, BLOCK_ROWS["cuda"])


@contextmanager
def full_float32() -> Iterator[None]:
    """Products in float32 as they are, whatever training has chosen."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.no_grad():
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _kind(tensor: Tensor) -> str:
    return "cpu" if tensor.device.type == "cpu" else "cuda"
