"""One clustering of a training run's embeddings, on any shards, and without Ray in the run's own process."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from clray.config.sections import KMeansConfig
from clray.errors import UserError
from clray.kmeans.lloyd import Clustering, Level, descend
from clray.kmeans.nested import coarsen, coarser_ids
from clray.kmeans.options import KMeansOptions
from clray.kmeans.origin import MAX_SQUARED_NORM, choose_origin, put_back, take_off
from clray.kmeans.shards.choice import maker_here
from clray.kmeans.shards.together import LocalShards, Shards
from clray.kmeans.vectors.source import split_rows


@dataclass(frozen=True)
class Refreshed:
    """Clusters whose ids lie where the vectors are.

    Attributes:
        levels: of each granularity, relative to `origin`.
        ids: how the shards hand over those of each granularity, of nested ones of the first alone.
        parents: of nested ones, for each but the last the next coarser cluster of each of its clusters, int32 [K].
        network_bytes: what crossed the network between nodes, where that is counted.
    """

    levels: list[Level]
    ids: list[Any]
    parents: list[np.ndarray]
    origin: np.ndarray | None
    network_bytes: int = 0

    @property
    def searched(self) -> list[np.ndarray]:
        """The centroids that the ids are of, float32 [K, dim], relative to `origin`."""
        return [each.centroids for each in self.levels[: len(self.ids)]]

    def clusterings(self, ids: list[np.ndarray]) -> list[Clustering]:
        """Of each granularity, with ids of these vectors under `searched`."""
        every = [*ids, *coarser_ids(ids[0], self.parents)]
        found = [level.with_ids(each) for level, each in zip(self.levels, every, strict=True)]
        return [
            replace(each, centroids=put_back(each.centroids, self.origin), network_bytes=self.network_bytes)
            for each in found
        ]


def refresh_clusters(
    shards: Shards,
    num_clusters: tuple[int, ...],
    config: KMeansConfig,
    *,
    nested: bool,
    seed: int,
    initial: list[np.ndarray] | None,
) -> Refreshed:
    """Clusters of each granularity.

    Args:
        config: gives iterations, redos and spherical mode; fewer iterations where `initial` is given.
        nested: cluster the centroids of the first granularity into the next, and so on.
        initial: centroids of each granularity to start from, float32 [K, dim].

    Raises:
        UserError: more clusters than embeddings, or embeddings that are not finite.
    """
    survey = shards.survey(num_clusters)
    num_bad = len(survey.bad_rows)
    if num_bad:
        raise UserError(
            f"{num_bad} of {num_bad + survey.num_vectors} embeddings cannot be clustered: they hold NaN, infinity or "
            f"a squared norm above {MAX_SQUARED_NORM:.0e}. The encoder has diverged; lower train.learning_rate"
        )
    if not config.spherical:
        shards = shards.about(choose_origin(survey, np.dtype(np.float32)))
    options = KMeansOptions(**config.model_dump(), seed=seed)
    if initial is not None:
        options = options.model_copy(update={"num_iterations": config.num_refresh_iterations})
    first = num_clusters[:1] if nested else num_clusters
    start = None if initial is None else [take_off(each, shards.origin) for each in initial]
    best = descend(shards, first, options, initial=start and start[: len(first)])
    found = shards.place([each.centroids for each in best])
    levels = [
        Level(descent.centroids, each.sizes, each.inertia, descent.history)
        for descent, each in zip(best, found, strict=True)
    ]
    above = None if start is None else start[len(first) :] or None
    coarser, parents = coarsen(levels[0], num_clusters[len(first) :], options, initial=above)
    return Refreshed([*levels, *coarser], [each.ids for each in found], parents, shards.origin)


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
        """Cluster now, float32 [n, dim]; the arguments are those of `clray.training.workers.port.Cluster`."""
        bounds = split_rows(len(vectors), self.config.num_shards)
        maker = maker_here(self.config.backend, gpus=self.config.gpus_per_shard)
        shards = LocalShards([maker.make(vectors[start:stop]) for start, stop in bounds])
        found = refresh_clusters(shards, num_clusters, self.config, nested=nested, seed=seed, initial=initial)
        return Done(found.clusterings(found.ids))


@dataclass(frozen=True)
class Done:
    """A clustering that has ended."""

    clusterings: Sequence[Clustering]

    def ready(self) -> bool:
        return True

    def result(self) -> list[Clustering]:
        return list(self.clusterings)
