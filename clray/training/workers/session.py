"""The port between training and the world: who am I, cluster these, here are my metrics and checkpoint.

Training code reports to a Session and nothing else. Knows neither Ray nor MLflow.
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist

from clray.kmeans.lloyd import Clustering
from clray.training.checkpoint import BEST_FILE, CHECKPOINT_FILE, keep_best, newest_checkpoint, write_checkpoint
from clray.training.storage import Storage

METRICS_FILE = "metrics.jsonl"
BEST_METRIC = "eval/linear_accuracy"
log = logging.getLogger(__name__)
Metrics = dict[str, float]
OnReport = Callable[[Metrics], None]
OnStep = Callable[[int, int], None]
"""Hears of the step that begins, from 0, and of the steps per epoch."""


class PendingClustering(Protocol):
    """A clustering under way."""

    def ready(self) -> bool:
        """Whether `result` would return at once."""
        ...

    def result(self) -> list[Clustering]:
        """The clustering of each granularity, with the ids of the caller's vectors; waits for it."""
        ...


class Cluster(Protocol):
    """Starts k-means over the embeddings of all workers, for one or more numbers of clusters.

    The ids returned are those of the caller's vectors. `nested` clusters the centroids of the first granularity into
    the next, and so on; `initial` holds the centroids of each granularity to start from.
    """

    def __call__(
        self,
        vectors: np.ndarray,
        num_clusters: tuple[int, ...],
        *,
        nested: bool,
        seed: int,
        initial: list[np.ndarray] | None,
    ) -> PendingClustering: ...


class Session(Protocol):
    """What a run sees of the place where it runs."""

    rank: int
    world_size: int
    device: torch.device
    cluster: Cluster | None

    def restore(self) -> dict[str, Any] | None:
        """The checkpoint to go on from, or None for a fresh start."""
        ...

    def report(self, metrics: Metrics, checkpoint: dict[str, Any] | None) -> None:
        """Hand out an epoch's metrics (equal on all ranks), and on rank 0 a checkpoint where one is due."""
        ...

    def at_step(self, step: int, steps_per_epoch: int) -> None:
        """Hear that this worker is about to take step `step` of the run, from 0."""
        ...

    def save(self, checkpoint: dict[str, Any] | None) -> None:
        """Hand out a checkpoint within an epoch; on ranks other than 0 it is None."""
        ...


@dataclass
class LocalSession:
    """A run of one worker in this process, with its files in `folder`."""

    folder: Path
    cluster: Cluster | None
    on_report: OnReport
    device: torch.device
    on_step: OnStep | None = None
    storage: Storage | None = None
    rank: int = 0
    world_size: int = 1

    def restore(self) -> dict[str, Any] | None:
        if self.storage is not None and not (self.folder / CHECKPOINT_FILE).exists():
            self.storage.download(self.folder)
        checkpoint = newest_checkpoint(self.folder)
        truncate_metrics(self.folder, checkpoint["epoch"] if checkpoint else 0)
        return checkpoint

    def report(self, metrics: Metrics, checkpoint: dict[str, Any] | None) -> None:
        append_metrics(self.folder, metrics)
        self.save(checkpoint)
        if checkpoint is not None and is_best(self.folder):
            keep_best(self.folder, self.folder / CHECKPOINT_FILE)
            self._upload(BEST_FILE)
        self._upload(METRICS_FILE)
        self.on_report(metrics)

    def at_step(self, step: int, steps_per_epoch: int) -> None:
        if self.on_step is not None:
            self.on_step(step, steps_per_epoch)

    def save(self, checkpoint: dict[str, Any] | None) -> None:
        if checkpoint is not None:
            write_checkpoint(self.folder, checkpoint, num_kept=checkpoint["config"]["train"]["num_checkpoints"])
            self._upload(CHECKPOINT_FILE)

    def _upload(self, name: str) -> None:
        if self.storage is not None:
            self.storage.upload(self.folder / name)


def default_device() -> torch.device:
    """The first GPU this process may use where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def gather(values: np.ndarray, world_size: int) -> list[np.ndarray]:
    """The arrays of all workers, by rank; every rank must call it."""
    return gather_objects(values, world_size)


def gather_objects(value: Any, world_size: int) -> list[Any]:
    """What all workers hold, by rank; every rank must call it."""
    if world_size == 1:
        return [value]
    gathered: list[Any] = [None] * world_size
    dist.all_gather_object(gathered, value)
    return gathered


def gather_on_first(value: Any, world_size: int) -> list[Any] | None:
    """What all workers hold, by rank, on rank 0 alone; None on the others, which receive nothing.

    Every rank must call it.
    """
    if world_size == 1:
        return [value]
    gathered: list[Any] | None = [None] * world_size if dist.get_rank() == 0 else None
    dist.gather_object(value, gathered, dst=0)
    return gathered


def agree(flag: bool, session: Session) -> bool:
    """Whether the flag is set on every worker; every rank must call it."""
    if session.world_size == 1:
        return flag
    flags = torch.tensor(int(flag), device=session.device)
    dist.all_reduce(flags, op=dist.ReduceOp.MIN)
    return bool(flags)


def append_metrics(folder: Path, metrics: Metrics) -> None:
    """Add one line to the run's `metrics.jsonl`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / METRICS_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(metrics) + "\n")


def read_metrics(folder: Path) -> list[Metrics]:
    """The epochs in `metrics.jsonl`; a last line cut short by a kill is left out."""
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]


def is_best(folder: Path) -> bool:
    """Whether the last epoch in `metrics.jsonl` was evaluated and is better than those before it."""
    scores = [metrics.get(BEST_METRIC, -1.0) for metrics in read_metrics(folder)]
    return scores[-1] > max(scores[:-1], default=-1.0)


def truncate_metrics(folder: Path, num_epochs: int) -> None:
    """Drop what was written after the checkpoint that the run goes on from, so that no epoch stands twice."""
    path = folder / METRICS_FILE
    if path.exists():
        kept = [metrics for metrics in read_metrics(folder) if metrics["epoch"] <= num_epochs]
        partial = path.with_suffix(".partial")
        partial.write_text("".join(json.dumps(metrics) + "\n" for metrics in kept), encoding="utf-8")
        partial.replace(path)
