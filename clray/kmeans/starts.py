"""Centroids to start from, by one of several methods."""

import numpy as np

from clray.kmeans.options import KMeansOptions
from clray.kmeans.parallel_start import parallel_start
from clray.kmeans.shards.faiss_shard import spread_centroids
from clray.kmeans.shards.together import Shards
from clray.kmeans.update import unit

SAMPLE_PER_CLUSTER = 64


def start_centroids(shards: Shards, num_clusters: int, options: KMeansOptions, redo: int) -> np.ndarray:
    """Centroids to start from, float32 [K, dim]; the same for any number of shards."""
    if options.init == "kmeans-parallel":
        return parallel_start(shards, num_clusters, options, redo)
    generator = np.random.default_rng((options.seed, redo))
    num_taken = num_clusters if options.init == "random" else SAMPLE_PER_CLUSTER * num_clusters
    num_taken = min(num_taken, shards.num_vectors)
    taken = shards.take(np.sort(generator.choice(shards.num_vectors, num_taken, replace=False)))
    if options.init != "random":
        return spread_centroids(taken, num_clusters, options.init, seed=int(generator.integers(2**31)))
    return unit(taken).astype(np.float32) if options.spherical else taken
