"""k-means++ over weighted points (Arthur & Vassilvitskii, SODA 2007), many draws at a time.

One draw after the other reads all points K times. Here a batch is drawn by the distances before it, and each of its
draws is kept with the probability by which its distance has not shrunk since. That is rejection sampling: what is kept
follows exactly the law of single draws, while a batch costs one matrix product.
"""

import numpy as np
from jaxtyping import Float, Int

from clray.kmeans.shards.faiss_shard import FaissShard

MAX_BATCH = 1024


def spread_rows(
    points: Float[np.ndarray, "m dim"],
    weights: Float[np.ndarray, " m"],
    num_clusters: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, " k"]:
    """Rows of points that are far apart: each is drawn in proportion to weight x squared distance to those before.

    Args:
        points: float32, at least as many as clusters.
        weights: at least 0, some above.

    Returns:
        Different rows, int64 [K], in the order of the draws. Where fewer points differ, any others follow.
    """
    shard = FaissShard(points)
    chosen = generator.choice(len(points), 1, p=weights / weights.sum())
    squares, new = np.full(len(points), np.inf, np.float32), chosen
    while len(chosen) < num_clusters:
        ((_, found),) = shard.measure([points[new]])
        np.minimum(squares, found, out=squares)
        squares[new] = 0
        mass = np.cumsum(weights * squares)
        if mass[-1] <= 0:
            others = np.setdiff1d(np.arange(len(points)), chosen)
            return np.concatenate([chosen, others[: num_clusters - len(chosen)]])
        # As many as there are already: at first each draw shrinks most distances, and few of a batch would be kept.
        size = min(MAX_BATCH, len(chosen))
        drawn = np.searchsorted(mass, generator.random(size) * mass[-1], side="right").clip(max=len(points) - 1)
        new = drawn[_kept(points[drawn], squares[drawn], generator.random(size))][: num_clusters - len(chosen)]
        chosen = np.concatenate([chosen, new])
    return chosen


def _kept(
    points: Float[np.ndarray, "b dim"], squares: Float[np.ndarray, " b"], shares: Float[np.ndarray, " b"]
) -> list[int]:
    """Which draws of a batch are kept, in order: with probability (squared distance now) / (that before the batch)."""
    wide = points.astype(np.float64)
    norms = np.einsum("ij,ij->i", wide, wide)
    between = norms[:, None] - 2 * wide @ wide.T + norms
    between[np.arange(len(points)), np.arange(len(points))] = 0
    now, kept = squares.astype(np.float64), []
    for draw in range(len(points)):
        if shares[draw] * squares[draw] < now[draw]:
            kept.append(draw)
            np.minimum(now, between[draw], out=now)
    return kept
