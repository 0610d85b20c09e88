"""What a run asks of the Ray cluster."""

from clray.config import Config
from clray.data.images.ahead import decoders_of
from clray.data.samples import Dataset
from clray.ray_runtime.room import Bundle, Group


def worker_group(config: Config, data: Dataset) -> Group:
    """The workers of one run; where images are decoded while training, each has its decoders beside it."""
    train, is_decoding = config.train, not data.train.images.is_decoded
    cpus = train.cpus_per_worker + (decoders_of(config.data, train.cpus_per_worker) if is_decoding else 0)
    return Group(train.num_workers, Bundle(cpus, train.gpus_per_worker), "worker")


def needs_ray(config: Config) -> bool:
    """Whether a single run needs a Ray cluster: for k-means actors or for several workers."""
    return config.clusters.source == "kmeans" or config.train.num_workers > 1
