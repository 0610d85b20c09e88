"""What a run needs of Ray: the cluster with room for it, and the k-means service."""

from typing import Any

from clray.config import Config
from clray.config.sections import KMeansConfig
from clray.data.samples import Dataset
from clray.kmeans.service import KMeansService
from clray.kmeans.shards.actors import shard_group
from clray.ray_runtime.cluster import require_labels, require_room, start_ray, warn_of_unused_gpus
from clray.ray_runtime.room import NOTHING
from clray.training.workers.resources import needs_shards, worker_group


def start_service(config: KMeansConfig) -> Any:
    """The k-means service with its shard actors; it ends with its handle.

    Raises:
        UserError: no node carries the labels that the shards ask for.
    """
    require_labels(config.node_labels, "kmeans.node_labels")
    return KMeansService.remote(config)  # type: ignore[attr-defined]  # what the decorator adds


def start_for_run(config: Config, data: Dataset, *, verbose: bool = False) -> Any | None:
    """Ray, with room for the run checked, and the k-means service where its clusters come from there.

    Raises:
        UserError: the cluster does not answer or is too small.
    """
    has_shards = needs_shards(config)
    workers, shards = worker_group(config, data), shard_group(config.kmeans) if has_shards else NOTHING
    start_ray(needed_cpus=workers.cpus + shards.cpus, verbose=verbose)
    require_room(workers, "the run", beside=shards, labels=config.kmeans.node_labels)
    warn_of_unused_gpus(config.train.gpus_per_worker)
    return start_service(config.kmeans) if has_shards else None
