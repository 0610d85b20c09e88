"""k-means||: a start from a few passes over all vectors (Bahmani et al., VLDB 2012, arXiv 1203.6402, algorithm 2).

k-means++ needs a pass for each centroid, hence a sample. Here a pass draws many candidates at once; weighted by the
vectors nearest to them they are few enough to be clustered in one process.
"""

import numpy as np
from jaxtyping import Float

from clray.kmeans.options import KMeansOptions
from clray.kmeans.plus_plus import spread_rows
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import Shards
from clray.kmeans.update import unit, update_centroids

NUM_ROUNDS = 5
"""Section 5.3: more gain nothing."""

CONDENSE_STARTS, CONDENSE_ITERATIONS, CONDENSE_TOLERANCE = 3, 20, 1e-3
"""Of Lloyd over the candidates: starts, of which the best is kept; iterations of each, at most; and the relative fall
of the inertia that ends it."""


def parallel_start(shards: Shards, num_clusters: int, options: KMeansOptions, redo: int) -> Float[np.ndarray, "k dim"]:
    """Centroids to start from, float32.

    Random numbers belong to rows, so that the number of shards decides nothing but the rounding of sums.
    """
    generator = np.random.default_rng((options.seed, redo))
    candidates, weights = draw_candidates(shards, num_clusters, options, redo, generator)
    missing = num_clusters - len(candidates)
    if missing > 0:  # fewer vectors differ, or were drawn
        rows = np.sort(generator.choice(shards.num_vectors, missing, replace=False))
        candidates, weights = np.concatenate([candidates, shards.take(rows)]), np.append(weights, np.zeros(missing))
    return condense(candidates, weights, num_clusters, generator, spherical=options.spherical)


def draw_candidates(
    shards: Shards, num_clusters: int, options: KMeansOptions, redo: int, generator: np.random.Generator
) -> tuple[Float[np.ndarray, "m dim"], Float[np.ndarray, " m"]]:
    """Candidates, float32, and the number of vectors nearest to each, float64.

    The first is drawn evenly. Each round draws `oversampling` x K more, a vector x with probability
    min(1, oversampling K d(x)^2 / sum of all d^2), where d(x) is the distance to the nearest candidate so far. A round
    searches its new candidates alone, and the last one gives the weights.
    """
    rows = generator.integers(shards.num_vectors, size=1)
    drawn, nearest = [], None
    for number in range(NUM_ROUNDS + 1):
        drawn.append(shards.take(rows))
        nearest, potential, weights = shards.approach(drawn[-1], nearest)
        if number == NUM_ROUNDS or potential == 0:
            break
        key = np.random.SeedSequence((options.seed, redo, number)).generate_state(2, np.uint64)
        rows = shards.draw(nearest, options.oversampling * num_clusters / potential, key)
        if not len(rows):
            break
    return np.concatenate(drawn), weights


def condense(
    points: Float[np.ndarray, "m dim"],
    weights: Float[np.ndarray, " m"],
    num_clusters: int,
    generator: np.random.Generator,
    *,
    spherical: bool,
) -> Float[np.ndarray, "k dim"]:
    """Centroids of weighted points, float32: k-means++, and a few of Lloyd's iterations, as in Spark's MLlib."""
    shard = FaissShard(points, weights=weights)
    best, least = points[:num_clusters], np.inf
    for _ in range(CONDENSE_STARTS):
        centroids: np.ndarray = points[spread_rows(points, weights, num_clusters, generator)]
        centroids = unit(centroids).astype(np.float32) if spherical else centroids
        before = np.inf
        for _ in range(CONDENSE_ITERATIONS):
            (sums,) = shard.accumulate([centroids])
            if sums.inertia < least:
                best, least = centroids, sums.inertia
            if not sums.inertia < (1 - CONDENSE_TOLERANCE) * before:
                break
            before = sums.inertia
            centroids = update_centroids(centroids, sums, generator, spherical=spherical)
    return best
