"""Resampling of a clustering, so that its centroids follow where the vectors lie and less how densely.

Many centroids of k-means stand where vectors are dense. As many vectors of each cluster, those closest to its centroid,
are spread more evenly; clustered again they give centroids that are, too (Vo et al., *Automatic Data Curation for
Self-Supervised Learning*, arXiv 2405.15613, algorithm 1).
"""

import numpy as np

from clray.kmeans.lloyd import Clustering, descend
from clray.kmeans.options import KMeansOptions
from clray.kmeans.shards.together import Shards
from clray.seeding import derive_seed

MOST_POINTS = 16
"""Of each cluster where nothing is asked for: the fewer, the more even and the sooner done; they are held in memory."""


def resample(shards: Shards, clustering: Clustering, options: KMeansOptions) -> Clustering:
    """The clustering after `options.resample_steps` steps, each of them a clustering of a resampled set.

    A step takes from each cluster the vectors closest to its centroid, clusters these alone from a new k-means++ start,
    and takes the centroids over for all vectors. No other start moves centroids out of where they are many.

    Args:
        shards: those of the clustering, about the same origin.

    Returns:
        Ids and inertia of all vectors under the last centroids; the history is that of the first clustering. With 0
        steps the clustering itself.
    """
    if options.resample_steps == 0:
        return clustering
    num_clusters, centroids = clustering.num_clusters, clustering.centroids
    most = options.resample_points or _half_of_a_cluster(shards.num_vectors, num_clusters)
    for step in range(options.resample_steps):
        seed = derive_seed(options.seed, "resample", epoch=step) % 2**32
        rows = shards.closest(centroids, most)
        if len(rows) < num_clusters:  # of equal vectors, of which the clusters besides the first are empty
            break
        again = options.model_copy(update={"seed": seed, "init": "kmeans++"})
        (found,) = descend(shards.holding(shards.take(rows)), [num_clusters], again)
        centroids = found.centroids
    ((ids, inertia),) = shards.assign([centroids])
    return Clustering(centroids, ids, inertia, clustering.history)


def _half_of_a_cluster(num_vectors: int, num_clusters: int) -> int:
    """Half of the vectors that a cluster has on average, as the authors take (their `configs/`), within bounds."""
    return int(np.clip(num_vectors // num_clusters // 2, 2, MOST_POINTS))
