"""One run to its end, by the adapter that its config asks for, with the k-means service beside it."""

import uuid
from pathlib import Path
from typing import Any

import ray
import torch

from clray.config import Config
from clray.config.sections import KMeansConfig
from clray.data.samples import Dataset
from clray.kmeans.refresh import LocalKMeans
from clray.kmeans.service import Attempt, KMeansClient, KMeansService
from clray.kmeans.shards.actors import shard_group
from clray.ray_runtime.cluster import require_labels, require_room, start_ray, warn_of_unused_gpus
from clray.ray_runtime.room import NOTHING
from clray.training.start import Start
from clray.training.storage import Storage, storage_of
from clray.training.trainer import run
from clray.training.trunk import Trunk
from clray.training.workers.group import train_in_group
from clray.training.workers.port import Cluster, OnReport, OnStep
from clray.training.workers.process import LocalSession, default_device
from clray.training.workers.resources import needs_ray, worker_group


def start_service(config: KMeansConfig) -> Any:
    """The k-means service with its shard actors; it ends with its handle.

    Raises:
        UserError: no node carries the labels that the shards ask for.
    """
    require_labels(config.node_labels, "kmeans.node_labels")
    return KMeansService.remote(config)  # type: ignore[attr-defined]  # what the decorator adds


def start_for_run(config: Config, data: Dataset, *, verbose: bool = False) -> Any | None:
    """Ray where the run needs it, with room checked, and the k-means service where its clusters come from there.

    Raises:
        UserError: the cluster does not answer or is too small.
    """
    if not needs_ray(config):
        return None
    has_shards = config.clusters.source == "kmeans"
    workers, shards = worker_group(config, data), shard_group(config.kmeans) if has_shards else NOTHING
    start_ray(needed_cpus=workers.cpus + shards.cpus, verbose=verbose)
    require_room(workers, "the run", beside=shards, labels=config.kmeans.node_labels)
    warn_of_unused_gpus(config.train.gpus_per_worker)
    return start_service(config.kmeans) if has_shards else None


def launch(
    config: Config,
    data: Dataset,
    folder: Path,
    start: Start | None = None,
    *,
    service: Any | None,
    on_report: OnReport,
    on_step: OnStep | None = None,
    debug: bool = False,
    storage: Storage | None = None,
    reference: Any | None = None,
    trunk: Trunk | None = None,
) -> None:
    """Train one run to its end, here or in a worker group; continues from its checkpoint where there is one.

    Args:
        start: what a fresh run starts from, where that is built already.
        service: the k-means service, where clusters come from there.
        on_report: hears of every epoch, in this process; after the restart of a group also of those trained again.
        on_step: hears of every step of a run in this process.
        debug: cluster in this process too, without Ray.
        storage: of the run, by default its folder in `train.storage_path`.
        reference: to the data set in Ray's object store, where it is there already.
        trunk: the epochs that this run shares with others; it starts from them, or keeps them.
    """
    if storage is None:
        storage = storage_of(config, folder.name)
    if config.train.num_workers > 1:
        kept = ray.put(data) if reference is None else reference
        train_in_group(config, kept, folder, on_report, service=service, storage=storage, trunk=trunk, start=start)
        return
    cluster: Cluster | None = None
    if debug:
        cluster = LocalKMeans(config.kmeans)
    elif service is not None:
        cluster = KMeansClient(service, config.kmeans, Attempt(str(folder), uuid.uuid4().hex))
    train_in_process(config, data, folder, on_report, cluster, storage, on_step, trunk, start)


def train_in_process(
    config: Config,
    data: Dataset,
    folder: Path,
    on_report: OnReport,
    cluster: Cluster | None = None,
    storage: Storage | None = None,
    on_step: OnStep | None = None,
    trunk: Trunk | None = None,
    start: Start | None = None,
) -> None:
    """Train in this process; continues from the checkpoint in `folder` where there is one."""
    torch.set_num_threads(max(1, int(config.train.cpus_per_worker)))
    run(config, data, LocalSession(folder, cluster, on_report, default_device(), on_step, storage, trunk), start)
