"""Where the vectors lie: which of them cannot be searched, and the point that is taken off before the search.

FAISS computes |x|^2 - 2xc + |c|^2 in float32. Far from the origin the three terms cancel and the nearest centroid is
lost; distances do not change where one point is taken off vectors and centroids alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

MAX_SQUARED_NORM = 1e35
"""Vectors beyond it are refused: differences of two of them, and the penalties of `balance`, stay within float32."""


@dataclass(frozen=True)
class Survey:
    """What one pass over vectors found.

    Attributes:
        bad_rows: rows that hold NaN or infinity, or whose squared norm is above MAX_SQUARED_NORM, ascending, int64.
        num_vectors: the other rows; the sums are of these alone.
        total: sum of the vectors, float64 [dim].
        squares: sum of their squared norms.
    """

    bad_rows: Int[np.ndarray, " m"]
    num_vectors: int
    total: Float[np.ndarray, " dim"]
    squares: float


def join_surveys(surveys: Sequence[Survey]) -> Survey:
    """The survey of all slices, rows counted over all of them."""
    sizes = [each.num_vectors + len(each.bad_rows) for each in surveys]
    starts = np.cumsum([0, *sizes[:-1]])
    return Survey(
        np.concatenate([each.bad_rows + start for each, start in zip(surveys, starts, strict=True)]),
        sum(each.num_vectors for each in surveys),
        np.sum([each.total for each in surveys], axis=0),
        sum(each.squares for each in surveys),
    )


def choose_origin(survey: Survey, dtype: np.dtype) -> Float[np.ndarray, " dim"] | None:
    """The mean of the vectors where they lie farther from the origin than from their mean, else None.

    A few vectors far away move the mean without being far from the origin together; taking it off would then harm the
    others. Vectors about the origin are searched as they are.

    Args:
        dtype: of the vectors. The point is float64 for float64, else float32: the subtraction is then exact where it
            matters (two numbers within a factor of two) and quick.
    """
    if not survey.num_vectors:
        return None
    mean = survey.total / survey.num_vectors
    squared_distance = float(mean @ mean)
    if squared_distance <= survey.squares / survey.num_vectors - squared_distance:
        return None
    return mean if dtype == np.float64 else mean.astype(np.float32)


def take_off(
    points: Float[np.ndarray, "n dim"], origin: Float[np.ndarray, " dim"] | None
) -> Float[np.ndarray, "n dim"]:
    """Points relative to the origin, float32, subtracted in float64."""
    moved = points if origin is None else points.astype(np.float64) - origin
    return np.ascontiguousarray(moved, dtype=np.float32)


def put_back(
    points: Float[np.ndarray, "n dim"], origin: Float[np.ndarray, " dim"] | None
) -> Float[np.ndarray, "n dim"]:
    """Points in the coordinates of the vectors, in the origin's type."""
    return points if origin is None else (points.astype(np.float64) + origin).astype(origin.dtype)
