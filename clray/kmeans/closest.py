"""The members of each cluster that lie closest to its centroid, found block by block in little memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

BLOCK = 65_536


@dataclass(frozen=True)
class Closest:
    """Vectors, in ascending order of their rows.

    Attributes:
        rows: int64 [m].
        ids: the cluster of each, int32 [m].
        squares: its squared distance to its centroid, float32 [m].
    """

    rows: Int[np.ndarray, " m"]
    ids: Int[np.ndarray, " m"]
    squares: Float[np.ndarray, " m"]


def closest_members(
    ids: Int[np.ndarray, " n"], squares: Float[np.ndarray, " n"], num_clusters: int, most: int
) -> Closest:
    """So many members of each cluster, or all where it has fewer; of equally close ones those of the first rows.

    Holds little more than `num_clusters * most` of them at a time, however many vectors there are.

    Args:
        ids: the cluster of each vector.
        squares: its squared distance to its centroid.
    """
    found = Closest(np.empty(0, np.int64), ids[:0], squares[:0])
    limits = np.full(num_clusters, np.inf)
    for start in range(0, len(ids), BLOCK):
        part, distances = ids[start : start + BLOCK], squares[start : start + BLOCK]
        near = np.flatnonzero(distances < limits[part])
        found = _joined([found, Closest(start + near, part[near], distances[near])])
        if len(found.rows) > 2 * num_clusters * most:
            found, limits = _best(found, num_clusters, most)
    return _best(found, num_clusters, most)[0]


def join_closest(parts: Sequence[Closest], starts: Sequence[int], num_clusters: int, most: int) -> Closest:
    """The closest members over all slices, from those of each; `starts` are the first rows of the slices."""
    moved = [Closest(each.rows + start, each.ids, each.squares) for each, start in zip(parts, starts, strict=True)]
    return _best(_joined(moved), num_clusters, most)[0]


def _joined(parts: Sequence[Closest]) -> Closest:
    return Closest(
        np.concatenate([each.rows for each in parts]),
        np.concatenate([each.ids for each in parts]),
        np.concatenate([each.squares for each in parts]),
    )


def _best(found: Closest, num_clusters: int, most: int) -> tuple[Closest, Float[np.ndarray, " k"]]:
    """The closest among these, and below which squared distance another vector would be one of them."""
    order = np.lexsort((found.squares, found.ids))
    ids = found.ids[order]
    starts = np.searchsorted(ids, np.arange(num_clusters + 1))
    is_close = np.arange(len(ids)) - starts[ids] < most
    limits = np.full(num_clusters, np.inf)
    full = np.flatnonzero(np.diff(starts) >= most)
    limits[full] = found.squares[order[starts[full] + most - 1]]
    kept = np.sort(order[is_close])
    return Closest(found.rows[kept], found.ids[kept], found.squares[kept]), limits
