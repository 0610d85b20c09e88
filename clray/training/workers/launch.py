"""One run to its end, by the adapter that its config asks for. Imports Ray only where the run needs it."""

from pathlib import Path
from typing import Any

import torch

from clray.config import Config
from clray.data.samples import Dataset
from clray.kmeans.in_training import TrainingKMeans
from clray.kmeans.refresh import LocalKMeans
from clray.training.first_clusterings import Wanted
from clray.training.start import Start
from clray.training.storage import Storage, storage_of
from clray.training.trainer import grow, run
from clray.training.workers.gpus import device_of, own_share
from clray.training.workers.port import Cluster, OnReport, OnStep
from clray.training.workers.process import LocalSession
from clray.training.workers.resources import needs_shards


def launch(
    config: Config,
    data: Dataset,
    folder: Path,
    start: Start | None = None,
    *,
    asked: Config | None = None,
    service: Any | None,
    on_report: OnReport,
    on_step: OnStep | None = None,
    debug: bool = False,
    storage: Storage | None = None,
    reference: Any | None = None,
    wanted: tuple[Wanted, ...] | None = None,
) -> None:
    """Train one run to its end, here or in a worker group; continues from its checkpoint where there is one.

    Args:
        config: with its GPUs settled.
        asked: the same with the GPUs that were asked for, which checkpoints keep: another machine settles them anew.
        start: what a fresh run starts from, where that is built already.
        service: the k-means service, where clusters come from there.
        on_report: hears of every epoch, in this process; after the restart of a group also of those trained again.
        on_step: hears of every step of a run in this process.
        debug: cluster in this process too, without Ray.
        storage: of the run, by default its folder in `train.storage_path`.
        reference: to the data set in Ray's object store, where it is there already.
        wanted: train only until the first clustering, and compute that for each of these; see `trainer.grow`.
    """
    if storage is None:
        storage = storage_of(config, folder.name)
    if config.train.num_workers > 1:
        from clray.training.workers.group import train_in_group

        train_in_group(
            config,
            data if reference is None else reference,
            folder,
            on_report,
            service=service,
            storage=storage,
            wanted=wanted,
            start=start,
            asked=asked,
        )
        return
    cluster: Cluster | None = None
    if config.clusters.source == "kmeans" and not needs_shards(config):
        cluster = TrainingKMeans(config.kmeans, device_of(config.train))
    elif debug:
        cluster = LocalKMeans(config.kmeans)
    elif service is not None:
        from clray.kmeans.attempts import new_attempt
        from clray.kmeans.service import KMeansClient

        cluster = KMeansClient(service, config.kmeans, new_attempt(str(folder)))
    train_in_process(config, data, folder, on_report, cluster, storage, on_step, wanted, start, asked)


def train_in_process(
    config: Config,
    data: Dataset,
    folder: Path,
    on_report: OnReport,
    cluster: Cluster | None = None,
    storage: Storage | None = None,
    on_step: OnStep | None = None,
    wanted: tuple[Wanted, ...] | None = None,
    start: Start | None = None,
    asked: Config | None = None,
) -> None:
    """Train in this process; continues from the checkpoint in `folder` where there is one."""
    torch.set_num_threads(max(1, int(config.train.cpus_per_worker)))
    device = device_of(config.train)
    session = LocalSession(folder, cluster, on_report, device, on_step, storage)
    with own_share(config.train, device):
        if wanted is None:
            run(asked or config, data, session, start)
        else:
            grow(asked or config, data, session, wanted, start)
