"""Near-duplicates among vectors in memory, by cosine similarity."""

import numpy as np
from jaxtyping import Float, Int

BLOCK = 1024
ROUNDING = 1e-6
"""Of a cosine in float32: vectors that are equal but for their length have one of at least 1 less this."""


def first_near(
    vectors: Float[np.ndarray, "n dim"], cosine: float
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """For each vector the nearest kept one before it, if the two are at least so similar; else it is kept itself.

    So no two kept vectors are that similar, and each of the others is that similar to a kept one. A vector of length
    zero has no direction and is kept.

    Args:
        vectors: in the order of preference.
        cosine: in 0..1.

    Returns:
        Index of the kept vector, int64, -1 for the kept ones themselves; and their cosine, float32, NaN for these.
    """
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    unit = (vectors / np.where(lengths > 0, lengths, 1)[:, None]).astype(np.float32)
    near, similarity = np.full(len(unit), -1), np.full(len(unit), np.nan, np.float32)
    least = cosine - ROUNDING
    kept = np.empty(0, np.int64)
    for start in range(0, len(unit), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(unit)))
        _take_nearest(unit, block, kept, least, near, similarity)
        among = np.tril(unit[block] @ unit[block].T, -1)
        # One after the other, as only what is kept itself stands for others.
        for i in np.flatnonzero((among >= least).any(axis=1)):
            before = np.flatnonzero((near[block[:i]] < 0) & (among[i, :i] >= least))
            if len(before):
                best = before[among[i, before].argmax()]
                if near[block[i]] < 0 or among[i, best] > similarity[block[i]]:
                    near[block[i]], similarity[block[i]] = block[best], among[i, best]
        kept = np.concatenate([kept, block[near[block] < 0]])
    return near, np.minimum(similarity, np.float32(1))


def _take_nearest(
    unit: np.ndarray, block: np.ndarray, kept: np.ndarray, least: float, near: np.ndarray, similarity: np.ndarray
) -> None:
    """The nearest of the kept vectors of earlier blocks, so many at a time."""
    best = np.full(len(block), -np.inf, np.float32)
    found = np.full(len(block), -1)
    for start in range(0, len(kept), BLOCK * 8):
        some = kept[start : start + BLOCK * 8]
        products = unit[block] @ unit[some].T
        columns = products.argmax(axis=1)
        values = products[np.arange(len(block)), columns]
        better = values > best
        best[better], found[better] = values[better], some[columns[better]]
    is_near = best >= least
    near[block[is_near]], similarity[block[is_near]] = found[is_near], best[is_near]
