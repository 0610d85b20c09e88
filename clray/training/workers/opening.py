"""What a run needs of Ray: the cluster with room for it, and the k-means service."""

from typing import Any, NamedTuple

import torch

from clray.config import Config
from clray.config.sections import KMeansConfig
from clray.data.samples import Dataset
from clray.kmeans.service import KMeansService
from clray.kmeans.shards.actors import require_gpus, shard_group
from clray.ray_runtime.cluster import (
    num_cluster_gpus,
    require_labels,
    require_room,
    start_ray,
    warn_of_unused_gpus,
)
from clray.ray_runtime.held_gpu import HeldGpu, hold_gpu
from clray.ray_runtime.room import NOTHING, Group
from clray.training.workers.gpus import with_gpus
from clray.training.workers.resources import fewest_workers, needs_shards, worker_group


def start_service(config: KMeansConfig, *, deterministic: bool = False) -> Any:
    """The k-means service with its shard actors; it ends with its handle.

    Args:
        deterministic: whether a run that it serves asks for that.

    Raises:
        UserError: no node carries the labels that the shards ask for.
    """
    require_labels(config.node_labels, "kmeans.node_labels")
    require_gpus(config)
    return KMeansService.remote(config, deterministic)  # type: ignore[attr-defined]  # what the decorator adds


def _shards(config: Config) -> Group:
    return shard_group(config.kmeans) if needs_shards(config) else NOTHING


class Opened(NamedTuple):
    """Attributes: the config with its GPUs settled; the k-means service; the GPU of a run in this process."""

    config: Config
    service: Any | None
    gpu: HeldGpu | None


def start_for_run(config: Config, data: Dataset, *, verbose: bool = False) -> Opened:
    """Ray, with room for the run checked, and the k-means service where its clusters come from there.

    Args:
        config: of a run in this process with its GPUs settled.

    Raises:
        UserError: the cluster does not answer or is too small.
    """
    shards = _shards(config)
    start_ray(needed_cpus=fewest_workers(config, worker_group(config, data)).cpus + shards.cpus, verbose=verbose)
    config = with_gpus(config, num_cluster_gpus() - shards.gpus)
    # On GPUs the workers may do without them.
    workers, shards = worker_group(config, data), _shards(config)
    require_room(fewest_workers(config, workers), "the run", beside=shards, labels=config.kmeans.node_labels)
    warn_of_unused_gpus(workers)
    gpu = None
    if config.train.num_workers == 1 and workers.bundle.gpus > 0:
        gpu = hold_gpu(workers.bundle.gpus)
        torch.cuda.set_device(gpu.index)
    service = start_service(config.kmeans, deterministic=config.train.deterministic) if shards.size else None
    return Opened(config, service, gpu)
