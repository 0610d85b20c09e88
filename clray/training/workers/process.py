"""The adapter for a run of one worker: in the calling process, with its files in the run's folder. Knows no Ray."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int

from clray.training.checkpoint import (
    BEST_FILE,
    GROUP_FOLDER,
    has_checkpoint_of_one,
    keep_best,
    newest_checkpoint,
    write_checkpoint,
)
from clray.training.checkpoint_form import Checkpoint, Snapshot
from clray.training.checkpoint_parts import CHECKPOINT_FILE
from clray.training.metrics import METRICS_FILE, Metrics, append_metrics, is_best, truncate_metrics
from clray.training.storage import Storage
from clray.training.workers.port import Cluster, Load, OnReport, OnStep
from clray.training.workers.writer import HostTree, Writer


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
    writer: Writer = field(default_factory=Writer)

    def restore(self, load: Load, rows: Int[np.ndarray, " n"]) -> bool:
        if self.storage is not None and not has_checkpoint_of_one(self.folder):
            self.storage.download(self.folder)
        checkpoint = newest_checkpoint(self.folder, load, rows)
        truncate_metrics(self.folder, 0 if checkpoint is None else checkpoint["epoch"])
        return checkpoint is not None

    def report(self, metrics: Metrics, snapshot: Snapshot | None) -> None:
        append_metrics(self.folder, metrics)
        if snapshot is not None:
            config = snapshot.whole()["config"]
            sweep = config["sweep"]
            self._begin(snapshot, is_best=is_best(self.folder, sweep["metric"]))
            may_end_here = sweep["scheduler"] != "fifo" or sweep["stop_dominated"]
            if metrics["epoch"] == config["train"]["num_epochs"] or may_end_here:
                self.writer.wait()  # for who hears of it reads it
        elif self.storage is not None and self.writer.is_idle:  # else the next one takes these along
            self.writer.begin(partial(self._upload, METRICS_FILE))
        self.on_report(metrics)

    def share(self, make: Callable[[], np.ndarray]) -> np.ndarray:
        return make()

    def at_step(self, step: int, steps_per_epoch: int) -> None:
        if self.on_step is not None:
            self.on_step(step, steps_per_epoch)

    def save(self, snapshot: Snapshot) -> None:
        self._begin(snapshot, is_best=False)

    def close(self) -> None:
        self.writer.wait()

    def _begin(self, snapshot: Snapshot, *, is_best: bool) -> None:
        """Write it while training goes on; there is one copy at a time."""
        self.writer.wait()
        self.writer.begin(partial(self._write, HostTree(snapshot.whole()), is_best))

    def _write(self, copy: HostTree, is_best: bool) -> None:
        checkpoint: Checkpoint = copy.result()
        write_checkpoint(self.folder, checkpoint, num_kept=checkpoint["config"]["train"]["num_checkpoints"])
        # A group's, of a run that had more workers before; they would stand for newer ones.
        shutil.rmtree(self.folder / GROUP_FOLDER, ignore_errors=True)
        if self._upload(CHECKPOINT_FILE) and self.storage is not None:
            self.storage.remove_group()
        if is_best:
            keep_best(self.folder, self.folder / CHECKPOINT_FILE)
            self._upload(BEST_FILE)
        self._upload(METRICS_FILE)

    def _upload(self, name: str) -> bool:
        file = self.folder / name
        return self.storage is not None and file.exists() and self.storage.upload(file)
