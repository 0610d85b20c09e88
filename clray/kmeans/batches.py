"""Mini-batches of a sample: centroids from which no pass over all vectors, or very few, remain.

An iteration over all vectors moves the centroids once; a batch moves them at the price of its own vectors. Vectors
that have not been seen say where centroids belong, while repeated iterations on one small sample come to follow its
chance: on 128 vectors a cluster they end 1.6 to 3.3 % above Lloyd on all.

Mini-batches are those of Sculley (WWW 2010). A centroid there is the mean of all vectors that it ever took, the first
of which lie near other centroids by now (Newling & Fleuret, arXiv 1602.02934). Here it is the mean of those in the last
half of the batches; of vectors seen again, the last time alone counts. A cluster without vectors among these is empty,
and is repaired as in Lloyd's iterations: centroids leave where vectors are few.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from clray.errors import UserError
from clray.kmeans.lloyd import Descent, best_start
from clray.kmeans.options import KMeansOptions
from clray.kmeans.shards.port import PartialSums
from clray.kmeans.shards.together import Shards
from clray.kmeans.starts import start_centroids
from clray.kmeans.update import update_centroids

BATCH_PER_CLUSTER = 16
"""Vectors of a batch, for each cluster. With fewer, clusters of a fair size too look empty in the first ones."""
MIN_UPDATES, MAX_BATCHES = 16, 64
"""A small sample is seen again until the centroids have moved so often. Sums of half of the batches are kept; with no
more than these they take a sixteenth of what the sample takes."""


def centroids_of_sample(
    shards: Shards, num_clusters: Sequence[int], options: KMeansOptions
) -> list[Float[np.ndarray, "_ dim"]]:
    """Centroids of each number of clusters, float32, from batches of a random sample of the vectors.

    Of several starts that is kept whose last batches had the least inertia, each searched before it moved anything.

    Raises:
        UserError: a sample of fewer vectors than clusters.
    """
    sample = draw_sample(shards, max(num_clusters), options)
    held = shards.holding(sample)
    starts = [
        Moving(redo, start_centroids(held, k, options, redo)) for k in num_clusters for redo in range(options.num_redos)
    ]
    del held  # of remote shards: the batches take the same memory again
    num_batches = min(max(len(sample) // (BATCH_PER_CLUSTER * max(num_clusters)), 1), MAX_BATCHES)
    for number in range(max(num_batches, MIN_UPDATES)):
        # The sample is in the order of the rows: every so-manieth vector of it is a sample again.
        batch = shards.holding(np.ascontiguousarray(sample[number % num_batches :: num_batches]), once=True)
        for each, sums in zip(starts, batch.accumulate([start.centroids for start in starts]), strict=True):
            each.move(sums, min(number // 2 + 1, num_batches), options)
    return [best_start([each for each in starts if each.num_clusters == k]).centroids for k in num_clusters]


def draw_sample(shards: Shards, least: int, options: KMeansOptions) -> Float[np.ndarray, "n dim"]:
    """The vectors of the sample, in the order of their rows."""
    size = round(options.sample_fraction * shards.num_vectors)
    if size < least:
        raise UserError(
            f"sample_fraction={options.sample_fraction:g} of {shards.num_vectors} vectors are {size}; at least "
            f"{least} are needed, one a cluster"
        )
    # Of its own stream: the start draws its vectors from that of the seed.
    generator = np.random.default_rng((options.seed, size, 1))
    return shards.take(np.sort(generator.choice(shards.num_vectors, size, replace=False)))


@dataclass
class Moving(Descent):
    """A set of centroids on its way through the batches; its history is of the batches that counted, a vector's share.

    Attributes:
        recent: sums of the batches whose vectors the centroids are the means of.
    """

    recent: deque[PartialSums] = field(default_factory=deque)

    def move(self, sums: PartialSums, num_kept: int, options: KMeansOptions) -> None:
        """Move the centroids to the means of the last so many batches, of which these are the sums of the newest."""
        self.recent.append(sums)
        while len(self.recent) > num_kept:
            self.recent.popleft()
        total = sum(list(self.recent)[1:], start=self.recent[0])
        generator = np.random.default_rng((options.seed, self.redo, len(self.history)))
        self.centroids = update_centroids(self.centroids, total, generator, spherical=options.spherical)
        self.history.append(total.inertia / float(total.counts.sum()))
