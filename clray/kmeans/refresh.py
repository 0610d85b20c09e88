"""One clustering of a training run's embeddings, on any shards, and without Ray in the run's own process."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clray.config.sections import KMeansConfig
from clray.kmeans.lloyd import Clustering, LloydOptions, LocalShards, Shards, lloyd
from clray.kmeans.nested import coarsen
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.vectors.source import ArraySlice, split_rows


def refresh_clusters(
    shards: Shards,
    num_clusters: tuple[int, ...],
    config: KMeansConfig,
    *,
    nested: bool,
    seed: int,
    initial: list[np.ndarray] | None,
) -> list[Clustering]:
    """A clustering for each granularity.

    Args:
        config: gives iterations, redos and spherical mode; fewer iterations where `initial` is given.
        nested: cluster the centroids of the first granularity into the next, and so on.
        initial: centroids of each granularity to start from, float32 [K, dim].
    """
    options = LloydOptions(
        num_iterations=config.num_iterations if initial is None else config.num_refresh_iterations,
        num_redos=config.num_redos,
        seed=seed,
        spherical=config.spherical,
        tolerance=config.tolerance,
        init=config.init,
    )
    if not nested:
        return lloyd(shards, num_clusters, options, initial=initial)
    start, above = (None, None) if initial is None else (initial[:1], initial[1:])
    (finest,) = lloyd(shards, num_clusters[:1], options, initial=start)
    return [finest, *coarsen(finest, num_clusters[1:], options, initial=above)[0]]


class LocalKMeans:
    """k-means for a run of one worker in its own process, without Ray: the same shards, one after the other."""

    def __init__(self, config: KMeansConfig) -> None:
        self.config = config

    def __call__(
        self,
        vectors: np.ndarray,
        num_clusters: tuple[int, ...],
        *,
        nested: bool,
        seed: int,
        initial: list[np.ndarray] | None,
    ) -> "Done":
        """Cluster now, float32 [n, dim]; the arguments are those of `clray.training.workers.session.Cluster`."""
        bounds = split_rows(len(vectors), self.config.num_shards)
        shards = LocalShards([FaissShard(ArraySlice(vectors[start:stop])) for start, stop in bounds])
        return Done(
            refresh_clusters(shards, num_clusters, self.config, nested=nested, seed=seed, initial=initial)
        )  # fmt: skip


@dataclass(frozen=True)
class Done:
    """A clustering that has ended."""

    clusterings: Sequence[Clustering]

    def ready(self) -> bool:
        return True

    def result(self) -> list[Clustering]:
        return list(self.clusterings)
