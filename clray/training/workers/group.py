"""The adapter for a run of several workers: a Ray Train worker group with DDP."""

import logging
import math
import os
import posixpath
import tempfile
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from jaxtyping import Int
from ray.train import CheckpointUploadMode
from ray.train.v2._internal.exceptions import (
    WorkerGroupStartupTimeoutError,
)

from clray.config import Config
from clray.data.samples import Dataset
from clray.errors import TrainingError, UserError
from clray.kmeans.attempts import new_attempt
from clray.kmeans.in_training import TrainingKMeans
from clray.kmeans.service import KMeansClient
from clray.kmeans.shards.actors import shard_group
from clray.ray_runtime.board import leave_note
from clray.training.checkpoint import BEST_FILE, GROUP_FOLDER
from clray.training.checkpoint_form import Snapshot
from clray.training.checkpoint_parts import CHECKPOINT_FILE, Place, remove_unfinished
from clray.training.first_clusterings import Wanted
from clray.training.metrics import METRICS_FILE, Metrics, append_metrics, is_best, read_metrics, truncate_metrics
from clray.training.start import Start
from clray.training.storage import Storage
from clray.training.trainer import grow, run
from clray.training.workers.backend import ProcessGroupConfig
from clray.training.workers.failing import failure_line, last_steps, starved_line, step_note
from clray.training.workers.gpus import device_of
from clray.training.workers.heartbeat import Heartbeat, is_timeout
from clray.training.workers.port import Cluster, Load, OnReport
from clray.training.workers.reports import Address, reports_heard
from clray.training.workers.resources import fewest_workers, needs_shards, worker_group
from clray.training.workers.shared import nodes_of_group, share_on_nodes
from clray.training.workers.together import restore_together, write_together
from clray.training.workers.writer import HostTree

log = logging.getLogger(__name__)
GROW_SECONDS = 60.0
"""From one look for room to grow to the next."""
STARTS = 3
"""Starts of a group that may fail besides those after a failure: for want of room, each after a minute."""


class GroupSession:
    """A worker of a Ray Train worker group."""

    def __init__(self, service: Any | None, config: Config, run: str, start: Any | None = None) -> None:
        """Args: `start` is a reference to a checkpoint file's bytes, for a group that has no checkpoint of its own."""
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = device_of(config.train)
        if self.device.type == "cuda":
            self.device = ray.train.torch.get_device()  # where a worker sees the GPUs of others too
        self.writers = dist.new_group(backend="gloo")
        """Of checkpoints, whose messages do not meet those of training."""
        self.is_idle = threading.Event()
        self.is_idle.set()
        shared = [new_attempt(run) if self.rank == 0 else None]
        dist.broadcast_object_list(shared, src=0)
        attempt = shared[0]
        assert attempt is not None, "worker 0 tells its attempt"
        self.nodes = nodes_of_group(self.world_size)
        self.heartbeat = Heartbeat(self.rank, self.world_size, partial(leave_note, step_note(attempt, self.rank)))
        self.cluster: Cluster | None = None
        self.start = start
        if config.clusters.source == "kmeans" and not needs_shards(config):
            self.cluster = TrainingKMeans(config.kmeans, self.device, rank=self.rank, world_size=self.world_size)
        elif service is not None:
            self.cluster = KMeansClient(service, config.kmeans, attempt, rank=self.rank, world_size=self.world_size)

    def restore(self, load: Load, rows: Int[np.ndarray, " n"]) -> bool:
        newest = ray.train.get_checkpoint()
        if newest is not None:
            folder = Place(newest.filesystem, posixpath.dirname(newest.path))
            # Ray Train names them by time; what is newer was never reported.
            places = folder.below()
            known = [each for each in reversed(places) if each.path <= newest.path]
            is_restored = restore_together(known, load, rows, self.rank, self.world_size)
            if self.rank == 0:
                remove_unfinished(each for each in places if each.path > newest.path)
            return is_restored
        if self.start is None:
            return False
        with tempfile.TemporaryDirectory() as here:
            (Path(here) / CHECKPOINT_FILE).write_bytes(ray.get(self.start))
            return restore_together([Place.here(Path(here))], load, rows, self.rank, self.world_size)

    def report(self, metrics: Metrics, snapshot: Snapshot | None) -> None:
        if snapshot is None:
            # Reports keep their order, so that one may wait for the checkpoint before it.
            mode = CheckpointUploadMode.SYNC if self.is_idle.is_set() else CheckpointUploadMode.ASYNC
            ray.train.report(metrics, checkpoint_upload_mode=mode)
            return
        self.is_idle.wait()
        self.is_idle.clear()
        storage = ray.train.get_context().get_storage()
        folder, copy = Place(storage.storage_filesystem, storage.experiment_fs_path), HostTree(snapshot._asdict())
        failed: list[UserError] = []

        def write(_: Any, name: str) -> Any:
            """In Ray Train's thread; which asks again after some errors, when the other workers have done with it."""
            if failed:
                raise failed[0]
            place = folder.inside(name)
            try:
                write_together(place, Snapshot(**copy.result()), self.writers)
            except UserError as error:
                failed.append(error)
                raise
            finally:
                self.is_idle.set()
            return ray.train.Checkpoint(place.path, place.system)

        ray.train.report(
            metrics,
            # What there is to write comes from `write`; without a checkpoint Ray Train would not ask it.
            checkpoint=ray.train.Checkpoint(folder.path, folder.system),
            checkpoint_upload_mode=CheckpointUploadMode.ASYNC,
            checkpoint_upload_fn=write,
            delete_local_checkpoint_after_upload=False,
        )

    def save(self, snapshot: Snapshot) -> None:
        self.report({}, snapshot)

    def close(self) -> None:
        """Ray Train waits for what is being written."""

    def share(self, make: Callable[[], np.ndarray]) -> np.ndarray:
        return make() if self.world_size == 1 else share_on_nodes(make, self, self.nodes)

    def at_step(self, step: int, steps_per_epoch: int) -> None:  # noqa: ARG002
        self.heartbeat.beat(step)


def _train_worker(arguments: dict[str, Any]) -> None:
    config: Config = arguments["config"]
    torch.set_num_threads(max(1, int(config.train.cpus_per_worker)))
    session = GroupSession(arguments["service"], config, arguments["run"], *arguments["checkpoint"])
    try:
        data, start, wanted = ray.get(arguments["data"][0]), ray.get(arguments["start"][0]), arguments["wanted"]
        asked = arguments["asked"]
        if wanted is None:
            run(asked, data, session, start)
        else:
            grow(asked, data, session, wanted, start)
    except RuntimeError as error:
        if not is_timeout(error):
            raise
        raise TrainingError(session.heartbeat.describe(config.train.timeout_seconds)) from None
    finally:
        session.heartbeat.close()


class _ReportCallback(ray.train.UserCallback):
    """Runs in Ray Train's controller: keeps worker 0's metrics, equal on all, in the run's files, and sends them on."""

    def __init__(self, folder: Path, metric: str, storage: Storage | None, address: Address) -> None:
        """Args: `metric` tells which epoch is the best."""
        self.folder, self.metric, self.storage, self.address = folder, metric, storage, address

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:  # noqa: ARG002
        if not metrics[0]:
            return  # a checkpoint within an epoch
        written = read_metrics(self.folder)
        if written and written[-1]["epoch"] >= metrics[0]["epoch"]:
            # The group was restarted from an earlier checkpoint.
            truncate_metrics(self.folder, int(metrics[0]["epoch"]) - 1)
        append_metrics(self.folder, metrics[0])
        if self.storage is not None:
            self.storage.upload(self.folder / METRICS_FILE)
        if checkpoint is not None:
            self._keep(Place(checkpoint.filesystem, checkpoint.path))
        self.address.send(metrics[0])

    def _keep(self, place: Place) -> None:
        """The best, and where checkpoints are stored elsewhere the newest: of each what all workers share."""
        names = [CHECKPOINT_FILE] if self.storage is not None else []
        names += [BEST_FILE] if is_best(self.folder, self.metric) else []
        for name in names:
            place.fetch(CHECKPOINT_FILE, self.folder / name)


def train_in_group(
    config: Config,
    data: Any | Dataset,
    folder: Path,
    on_report: OnReport,
    *,
    service: Any | None,
    storage: Storage | None = None,
    wanted: tuple[Wanted, ...] | None = None,
    start: Start | None = None,
    asked: Config | None = None,
) -> None:
    """Several workers under Ray Train with DDP (NCCL on GPUs, gloo on CPUs).

    Args:
        data: the data set, or its reference in Ray's object store.
        folder: of the run; a group that finds its checkpoint there continues from it.
        on_report: hears of each epoch, in a thread of this process; after a restart also of those trained again.
        service: the k-means service, where clusters come from there.
        start: the clusters that a fresh run starts from, where they are known already.
        storage: keeps the group's checkpoints in place of the folder.
        wanted, asked: as for `clray.training.workers.launch.launch`.

    Raises:
        TrainingError: the workers failed; the message is that of the first worker.
    """
    # Ray Train's controller gives a silent worker longer than the other workers do, for they can name it.
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(2 * config.train.timeout_seconds + 10)
    try:
        with reports_heard(on_report) as address:
            kept = ray.put(data) if isinstance(data, Dataset) else data
            _trainer(config, asked or config, kept, start, service, folder, storage, address, wanted).fit()
    except ray.train.TrainingFailedError as error:
        if isinstance(getattr(error, "controller_failure", None), WorkerGroupStartupTimeoutError):
            raise TrainingError(starved_line(fewest_workers(config, worker_group(config, ray.get(kept))))) from None
        steps = last_steps(str(folder), config.train.num_workers)
        raise TrainingError(failure_line(error, steps, config.train.timeout_seconds)) from None


def _trainer(
    config: Config,
    asked: Config,
    data: Any,
    start: Start | None,
    service: Any | None,
    folder: Path,
    storage: Storage | None,
    address: Address,
    wanted: tuple[Wanted, ...] | None,
) -> Any:
    train, each = config.train, worker_group(config, ray.get(data)).bundle
    checkpoint = [ray.put(file.read_bytes()) for file in checkpoint_of_one(folder, storage)]
    system, path = (None, str(folder.resolve())) if storage is None else storage.place
    scaling = ray.train.ScalingConfig(  # type: ignore[call-arg]  # Ray's stubs are those of Train V1
        num_workers=train.num_workers if train.min_workers is None else (train.min_workers, train.num_workers),  # type: ignore[arg-type]
        use_gpu=each.gpus > 0,
        resources_per_worker={"CPU": each.cpus, "GPU": each.gpus},
        elastic_resize_monitor_interval_s=GROW_SECONDS,
    )
    trainer: Any = ray.train.torch.TorchTrainer
    if train.min_workers is not None:
        from clray.training.workers.elastic import ElasticTrainer, FreeRoom  # take Ray Data along

        shards = shard_group(config.kmeans)
        trainer = partial(ElasticTrainer, FreeRoom(scaling, each, service, shards, config.kmeans.node_labels))
    return trainer(
        _train_worker,
        # Inside a list a reference travels as a reference.
        train_loop_config={
            "config": config,
            "asked": asked,
            "data": [data],
            "start": [ray.put(start)],
            "checkpoint": checkpoint,
            "service": service,
            "wanted": wanted,
            "run": str(folder),
        },
        torch_config=ProcessGroupConfig(backend_of(each.gpus), timeout_s=math.ceil(train.timeout_seconds)),
        scaling_config=scaling,
        run_config=ray.train.RunConfig(
            name=GROUP_FOLDER,
            storage_filesystem=system,
            storage_path=path,
            # Ray's stubs are those of Train V1.
            failure_config=ray.train.FailureConfig(  # type: ignore[call-arg]
                max_failures=train.max_failures,
                # Ray Train counts the starts that fail over the whole run; each restart may meet another loss.
                controller_failure_limit=STARTS + train.max_failures,
            ),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=train.num_checkpoints),
            callbacks=[_ReportCallback(folder, config.sweep.metric, storage, address)],  # type: ignore[list-item]
        ),
    )


def checkpoint_of_one(folder: Path, storage: Storage | None) -> list[Path]:
    """What one worker has written, fetched where the folder is lost; a group without checkpoints starts from it."""
    file = folder / CHECKPOINT_FILE
    return [file] if file.exists() or (storage is not None and storage.fetch(CHECKPOINT_FILE, folder)) else []


def backend_of(gpus: float) -> str:
    """Of the process group: objects and what lies on the CPU go by gloo, also between workers on GPUs."""
    return "cpu:gloo,cuda:nccl" if gpus > 0 else "gloo"
