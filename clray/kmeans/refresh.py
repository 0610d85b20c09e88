"""One clustering of a training run's embeddings, on any shards, and without Ray in the run's own process."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from clray.config.sections import KMeansConfig
from clray.errors import UserError
from clray.kmeans.kmeans import kmeans
from clray.kmeans.lloyd import Clustering
from clray.kmeans.options import KMeansOptions
from clray.kmeans.origin import MAX_SQUARED_NORM, choose_origin
from clray.kmeans.shards.choice import maker_here
from clray.kmeans.shards.together import LocalShards, Shards
from clray.kmeans.vectors.source import split_rows


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
    return kmeans(shards, num_clusters, options, nested=nested, initial=initial)[0]


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
