"""Balanced assignment: clusters pay a penalty for being large, until none is much larger than the others.

The idea of Tavenard et al., CBMI 2011 and faiss `contrib/clustering.py` (balanced_assignment_with_penalties), with two
differences. There the penalties weigh among the 100 nearest centroids of vectors in memory; here among all, over any
shards: d(x, c)^2 + p is the squared distance between (x, 0) and (c, sqrt(p)), so each round is an ordinary exact
search. There penalties are multiplied, from a start of 1 whatever the scale; here they are added to, in units of the
mean squared distance, as in the ascent of the dual of the assignment problem, and the evenest round is kept.
"""

import numpy as np

from clray.kmeans.lloyd import Clustering
from clray.kmeans.shards.together import Shards

STEP = 0.3
"""First step, in mean squared distances per factor e of size: 1 oscillates, 0.1 takes twice the rounds."""


def balance(shards: Shards, clustering: Clustering, *, num_rounds: int = 20) -> Clustering:
    """The same centroids with evener ids; the inertia is that of these ids.

    Args:
        num_rounds: passes over the vectors.
    """
    num_clusters = clustering.num_clusters
    scale = max(clustering.inertia, 1e-12) / shards.num_vectors
    penalties = np.zeros(num_clusters)
    lifted, least = _lift(clustering.centroids, penalties), np.inf
    for number in range(num_rounds):
        tried = _lift(clustering.centroids, penalties)
        (sums,) = shards.accumulate([tried])
        if sums.imbalance < least:
            lifted, least = tried, sums.imbalance
        ratios = np.maximum(sums.counts * num_clusters / shards.num_vectors, 0.1)
        penalties += STEP * scale / (1 + number / 10) * np.log(ratios)
        penalties -= penalties.min()
    ((ids, inertia),) = shards.assign([lifted])
    paid = (np.bincount(ids, minlength=num_clusters) * lifted[:, -1].astype(np.float64) ** 2).sum()
    return Clustering(clustering.centroids, ids, inertia - float(paid), clustering.history)


def _lift(centroids: np.ndarray, penalties: np.ndarray) -> np.ndarray:
    return np.concatenate([centroids, np.sqrt(penalties)[:, None].astype(np.float32)], axis=1)
