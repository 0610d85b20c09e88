"""What a run asks of the Ray cluster."""

from clray.config import Config


def required_resources(config: Config) -> dict[str, float]:
    """CPUs and GPUs of one run's workers."""
    train = config.train
    return {"CPU": train.num_workers * train.cpus_per_worker, "GPU": train.num_workers * train.gpus_per_worker}


def needs_ray(config: Config) -> bool:
    """Whether a single run needs a Ray cluster: for k-means actors or for several workers."""
    return config.clusters.source == "kmeans" or config.train.num_workers > 1
