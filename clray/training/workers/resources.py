"""What a run asks of the Ray cluster."""

from dataclasses import replace

from clray.config import Config
from clray.data.images.ahead import decoders_of
from clray.data.samples import Dataset
from clray.ray_runtime.room import Bundle, Group
from clray.training.workers.gpus import gpus_of


def worker_group(config: Config, data: Dataset, *, num_gpus: float = 0.0) -> Group:
    """The workers of one run, as many as it may have; where images are decoded, each has its decoders beside it.

    Args:
        num_gpus: that they may take where `train.gpus_per_worker` is `auto`.
    """
    train, is_decoding = config.train, not data.train.images.is_decoded
    cpus = train.cpus_per_worker + (decoders_of(config.data, train.cpus_per_worker) if is_decoding else 0)
    return Group(train.num_workers, Bundle(cpus, gpus_of(train, num_gpus)), "worker")


def fewest_workers(config: Config, group: Group) -> Group:
    """Of the workers of a run, as many as it needs to begin."""
    return replace(group, size=config.train.min_workers or group.size)


def needs_ray(config: Config) -> bool:
    """Whether a single run needs a Ray cluster: for k-means actors or for several workers."""
    return needs_shards(config) or config.train.num_workers > 1


def needs_shards(config: Config, *, num_gpus: float = 0.0) -> bool:
    """Whether the run asks k-means shards for its clusters; else they come from elsewhere, or from its own workers.

    Workers search what lies on their own GPUs, unless shards were given GPUs or nodes of their own, or work while
    training goes on.

    Args:
        num_gpus: as for `worker_group`.
    """
    if config.clusters.source != "kmeans":
        return False
    kmeans, trains_on_gpu = config.kmeans, gpus_of(config.train, num_gpus) > 0
    on_device = kmeans.backend in ("torch", "flash-kmeans") or (kmeans.backend == "auto" and trains_on_gpu)
    has_own_place = kmeans.gpus_per_shard > 0 or bool(kmeans.node_labels)
    return not on_device or has_own_place or config.recluster.mode == "async"
