"""A run in this process, or as a Ray Train worker group, with the k-means service beside it."""

import logging
import math
import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
import torch.distributed as dist
from pyarrow import fs

from clray.config import Config
from clray.config.sections import KMeansConfig
from clray.data.samples import Dataset
from clray.errors import TrainingError, UserError
from clray.kmeans.refresh import LocalKMeans
from clray.kmeans.service import KMeansClient, KMeansService
from clray.kmeans.shards.actors import shard_group
from clray.ray_runtime.cluster import require_labels, require_room, start_ray, warn_of_unused_gpus
from clray.ray_runtime.room import NOTHING
from clray.training.checkpoint import CHECKPOINT_FILE, GROUP_FOLDER, keep_best, read_checkpoint, write_checkpoint
from clray.training.storage import Storage, storage_of
from clray.training.trainer import run
from clray.training.workers.heartbeat import Heartbeat, is_timeout
from clray.training.workers.resources import needs_ray, worker_group
from clray.training.workers.session import (
    METRICS_FILE,
    Cluster,
    LocalSession,
    Metrics,
    OnReport,
    OnStep,
    append_metrics,
    default_device,
    is_best,
    read_metrics,
    truncate_metrics,
)

log = logging.getLogger(__name__)


def start_service(config: KMeansConfig) -> Any:
    """The k-means service with its shard actors; it ends with its handle.

    Raises:
        UserError: no node carries the labels that the shards ask for.
    """
    require_labels(config.node_labels, "kmeans.node_labels")
    return KMeansService.remote(config)


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
    *,
    service: Any | None,
    on_report: OnReport,
    on_step: OnStep | None = None,
    debug: bool = False,
) -> None:
    """Train one run to its end, here or in a worker group.

    Args:
        debug: cluster in this process too, without Ray.
        on_report: hears of every epoch, in this process; after the restart of a group also of those trained again.
        on_step: hears of every step of a run in this process.
    """
    storage = storage_of(config, folder.name)
    if config.train.num_workers == 1:
        cluster = LocalKMeans(config.kmeans) if debug else None
        train_in_process(config, data, folder, on_report, service, storage, on_step, cluster)
        return
    stop = threading.Event()
    follower = threading.Thread(target=follow_metrics, args=(folder, on_report, stop), daemon=True)
    follower.start()
    try:
        train_in_group(config, ray.put(data), folder, service=service, storage=storage)
    finally:
        stop.set()
        follower.join(timeout=5)


def train_in_process(
    config: Config,
    data: Dataset,
    folder: Path,
    on_report: OnReport,
    service: Any | None,
    storage: Storage | None = None,
    on_step: OnStep | None = None,
    cluster: Cluster | None = None,
) -> None:
    """One worker, in this process; continues from the checkpoint in `folder` where there is one."""
    torch.set_num_threads(max(1, int(config.train.cpus_per_worker)))
    if service is not None:
        cluster = KMeansClient(service, config.kmeans, uuid.uuid4().hex)
    run(config, data, LocalSession(folder, cluster, on_report, default_device(), on_step, storage))


class GroupSession:
    """A worker of a Ray Train worker group."""

    def __init__(self, service: Any | None, config: KMeansConfig) -> None:
        context = ray.train.get_context()
        self.rank, self.world_size = context.get_world_rank(), context.get_world_size()
        self.device = ray.train.torch.get_device()
        self.heartbeat = Heartbeat(self.rank, self.world_size)
        self.cluster = None
        if service is not None:
            attempt = [uuid.uuid4().hex]
            dist.broadcast_object_list(attempt, src=0)
            self.cluster = KMeansClient(service, config, attempt[0], rank=self.rank, world_size=self.world_size)

    def restore(self) -> dict[str, Any] | None:
        newest = ray.train.get_checkpoint()
        if newest is None:
            return None
        refused = []
        for checkpoint in (newest, *_before(newest)):
            try:
                with checkpoint.as_directory() as folder:
                    found = read_checkpoint(Path(folder) / CHECKPOINT_FILE)
            except UserError as error:
                refused.append(str(error))
                continue
            for reason in refused:
                log.warning("%s; resuming from %s", reason, checkpoint.path)
            return found
        raise UserError("\n".join([*refused, "no checkpoint is complete; start a new run"]))

    def report(self, metrics: Metrics, checkpoint: dict[str, Any] | None) -> None:
        if checkpoint is None:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder), checkpoint)
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def save(self, checkpoint: dict[str, Any] | None) -> None:
        self.report({}, checkpoint)

    def at_step(self, step: int, steps_per_epoch: int) -> None:  # noqa: ARG002
        self.heartbeat.beat(step)


def _before(newest: Any) -> list[Any]:
    """The checkpoints beside the newest, newest first; Ray Train names their folders by time."""
    system, path = newest.filesystem, Path(newest.path)
    beside = system.get_file_info(fs.FileSelector(str(path.parent), allow_not_found=True))
    older = [each.path for each in beside if each.type == fs.FileType.Directory and each.base_name < path.name]
    return [
        ray.train.Checkpoint(each, system) for each in sorted(older, reverse=True) if "checkpoint" in Path(each).name
    ]


def _train_worker(arguments: dict[str, Any]) -> None:
    config: Config = arguments["config"]
    torch.set_num_threads(max(1, int(config.train.cpus_per_worker)))
    session = GroupSession(arguments["service"], config.kmeans)
    try:
        run(config, ray.get(arguments["data"][0]), session)
    except RuntimeError as error:
        if not is_timeout(error):
            raise
        raise TrainingError(session.heartbeat.describe(config.train.timeout_seconds)) from None


class _ReportCallback(ray.train.UserCallback):
    """Runs in Ray Train's controller: keeps worker 0's metrics, equal on all, in the run's files."""

    def __init__(self, folder: Path, storage: Storage | None) -> None:
        self.folder = folder
        self.storage = storage

    def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:  # noqa: ARG002
        if not metrics[0]:
            return  # a checkpoint within an epoch
        written = read_metrics(self.folder)
        if written and written[-1]["epoch"] >= metrics[0]["epoch"]:
            # The group was restarted from an earlier checkpoint.
            truncate_metrics(self.folder, metrics[0]["epoch"] - 1)
        append_metrics(self.folder, metrics[0])
        if self.storage is not None:
            self.storage.upload(self.folder / METRICS_FILE)
        if checkpoint is not None:
            with checkpoint.as_directory() as source:
                if self.storage is not None:
                    shutil.copyfile(Path(source) / CHECKPOINT_FILE, self.folder / CHECKPOINT_FILE)
                if is_best(self.folder):
                    keep_best(self.folder, Path(source) / CHECKPOINT_FILE)


def train_in_group(
    config: Config,
    data: Any,
    folder: Path,
    *,
    service: Any | None,
    storage: Storage | None = None,
    callbacks: tuple[Any, ...] = (),
) -> None:
    """Several workers under Ray Train with DDP (NCCL on GPUs, gloo on CPUs).

    Args:
        data: object reference of the data set.
        folder: of the run; a group that finds its checkpoint there goes on from it.
        storage: keeps the group's checkpoints in place of the folder.
        callbacks: further callbacks of Ray Train, such as Tune's.

    Raises:
        TrainingError: the workers failed; the message is that of the first worker.
    """
    train = config.train
    each = worker_group(config, ray.get(data)).bundle
    system, path = (None, str(folder.resolve())) if storage is None else storage.place
    # Ray Train's controller gives a silent worker longer than the other workers do, for they can name it.
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(2 * train.timeout_seconds + 10)
    trainer = ray.train.torch.TorchTrainer(
        _train_worker,
        # Inside a list the reference travels as a reference.
        train_loop_config={"config": config, "data": [data], "service": service},
        torch_config=ray.train.torch.TorchConfig(timeout_s=math.ceil(train.timeout_seconds)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=train.num_workers,
            use_gpu=each.gpus > 0,
            resources_per_worker={"CPU": each.cpus, "GPU": each.gpus},
        ),
        run_config=ray.train.RunConfig(
            name=GROUP_FOLDER,
            storage_filesystem=system,
            storage_path=path,
            failure_config=ray.train.FailureConfig(max_failures=train.max_failures, controller_failure_limit=3),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=train.num_checkpoints),
            callbacks=[_ReportCallback(folder, storage), *callbacks],
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise TrainingError(error_line(error)) from None


def error_line(error: BaseException) -> str:
    """The message of the innermost cause, that of the first failed worker, in place of a nest of remote tracebacks."""
    failures = getattr(error, "worker_failures", None)
    while failures:
        # A worker that names another says more than that other's silence.
        error = next((each for each in failures.values() if _is_training_error(each)), next(iter(failures.values())))
        failures = getattr(error, "worker_failures", None)
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text if isinstance(error, UserError | TrainingError | RuntimeError) else f"{type(error).__name__}: {text}"


def _is_training_error(error: BaseException) -> bool:
    cause = getattr(error, "cause", None) or error.__cause__ or error
    return isinstance(cause, TrainingError)


def follow_metrics(folder: Path, on_metrics: Callable[[Metrics], None], stop: threading.Event) -> None:
    """Call back for each epoch that another process writes to the run's `metrics.jsonl`, until told to stop."""
    num_seen = 0
    while True:
        is_last_look = stop.is_set()
        metrics = read_metrics(folder)
        for epoch in metrics[num_seen:]:
            on_metrics(epoch)
        num_seen = max(num_seen, len(metrics))
        if is_last_look:
            return
        stop.wait(0.2)
