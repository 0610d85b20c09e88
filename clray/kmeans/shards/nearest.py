"""What a shard keeps between the rounds of k-means||: the nearest candidate of each vector, and how far it is."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt64

from clray.kmeans.shards.port import Shard

BLOCK_ROWS = 2**18
"""Rows for which random numbers are held at a time."""


@dataclass(frozen=True)
class Nearest:
    """Among the candidates so far, for the n vectors of a shard.

    Attributes:
        ids: the nearest candidate, int32 [n].
        squares: the squared distance to it, float32 [n].
        num_candidates: so far.
    """

    ids: Int[np.ndarray, " n"]
    squares: Float[np.ndarray, " n"]
    num_candidates: int

    @property
    def potential(self) -> float:
        """Sum of the squared distances."""
        return float(self.squares.sum(dtype=np.float64))

    @property
    def weights(self) -> Float[np.ndarray, " m"]:
        """Vectors nearest to each candidate, float64."""
        return np.bincount(self.ids, minlength=self.num_candidates).astype(np.float64)


def approach(shard: Shard, candidates: Float[np.ndarray, "_ dim"], before: Nearest | None) -> Nearest:
    """The nearest with new candidates, which alone are searched; `before` is left as it is."""
    ((ids, squares),) = shard.measure([candidates])
    if before is None:
        return Nearest(ids, squares, len(candidates))
    ids += before.num_candidates
    was_nearer = before.squares <= squares
    np.copyto(ids, before.ids, where=was_nearer)
    np.copyto(squares, before.squares, where=was_nearer)
    return Nearest(ids, squares, before.num_candidates + len(candidates))


def draw(nearest: Nearest, first_row: int, rate: float, key: UInt64[np.ndarray, "2"]) -> Int[np.ndarray, " m"]:
    """Rows of the shard, ascending, each drawn by itself with probability min(1, rate x squared distance).

    Args:
        first_row: of the shard, over all shards: with the key it says which random numbers are those of its rows.
    """
    drawn = [np.empty(0, np.int64)]
    for start in range(0, len(nearest.squares), BLOCK_ROWS):
        squares = nearest.squares[start : start + BLOCK_ROWS].astype(np.float64)
        shares = random_of_rows(first_row + start, len(squares), key)
        drawn.append(start + np.flatnonzero(shares < rate * squares))
    return np.concatenate(drawn)


def random_of_rows(first_row: int, num_rows: int, key: UInt64[np.ndarray, "2"]) -> Float[np.ndarray, " n"]:
    """A number in [0, 1) for each row, whatever rows are asked for with it.

    By Philox, a generator that turns counters into numbers, four to a counter (Salmon et al., SC 2011).
    """
    counter, skipped = divmod(first_row, 4)
    raw = np.random.Philox(key=key, counter=counter).random_raw(skipped + num_rows)[skipped:]
    return (raw >> np.uint64(11)) * 2.0**-53
