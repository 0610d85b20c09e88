"""What a run carries from epoch to epoch, and its checkpoint.

Random generators are not stored: each epoch derives its own from (run seed, component, epoch, rank).
"""

import os
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from clray.clusters.assignment import ClusterAssignment
from clray.config import Config, UserError
from clray.model.encoder import ContrastiveModel
from clray.seeding import derive_seed
from clray.train.objectives import Objective, build_objective
from clray.train.optim import build_optimizer, build_schedule

CHECKPOINT_FILE = "checkpoint.pt"
GROUP_FOLDER = "workers"
"""Where a worker group keeps its checkpoints, in the folder of the run."""


@dataclass
class TrainState:
    """Model, objective, optimizer, schedule, the next epoch, and the cluster assignments in use."""

    model: ContrastiveModel
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    assignments: tuple[ClusterAssignment, ...]
    """One per granularity."""
    centroids: list[np.ndarray] | None = None
    epoch: int = 0
    """The next epoch to train, from 0."""
    clustered_epoch: int = 0
    """The epoch in which the assignment was taken over."""

    def to_checkpoint(self, config: Config, num_channels: int) -> dict[str, Any]:
        """Everything needed to go on or to evaluate, as tensors and plain values."""
        return {
            "config": config.model_dump(mode="json"),
            "num_channels": num_channels,
            "epoch": self.epoch,
            "clustered_epoch": self.clustered_epoch,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "objective": self.objective.state_dict(),
            "cluster_ids": torch.from_numpy(np.stack([each.ids for each in self.assignments])),
            "num_clusters": [each.num_clusters for each in self.assignments],
            "cluster_source": self.assignments[0].source,
            "centroids": None if self.centroids is None else [torch.from_numpy(each) for each in self.centroids],
        }

    def load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take over a checkpoint of the same config and data.

        Raises:
            UserError: the checkpoint is of another data set.
        """
        ids, num_images = checkpoint["cluster_ids"].numpy(), len(self.assignments[0])
        if ids.shape[1] != num_images:
            raise UserError(
                f"the checkpoint assigns {ids.shape[1]} training images, the data hold {num_images}; "
                "resume with the data it was trained on, or start a new run"
            )
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.schedule.load_state_dict(checkpoint["schedule"])
        self.epoch, self.clustered_epoch = checkpoint["epoch"], checkpoint["clustered_epoch"]
        self.objective.load_state_dict(checkpoint["objective"])
        self.assignments = tuple(
            ClusterAssignment(each, num_clusters, checkpoint["cluster_source"])
            for each, num_clusters in zip(ids, checkpoint["num_clusters"], strict=True)
        )
        saved = checkpoint["centroids"]
        self.centroids = None if saved is None else [each.numpy() for each in saved]


def create_state(
    config: Config,
    *,
    num_channels: int,
    steps_per_epoch: int,
    assignments: tuple[ClusterAssignment, ...],
    device: torch.device,
) -> TrainState:
    """A fresh state; the initial weights depend on the run seed alone."""
    is_kmeans = config.clusters.source == "kmeans"
    num_clusters = config.clusters.num_clusters if is_kmeans else assignments[0].num_clusters
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        model = ContrastiveModel(config, num_channels, num_clusters)
    model = model.to(device)
    optimizer = build_optimizer(model, config.train)
    schedule = build_schedule(optimizer, config.train, steps_per_epoch)
    return TrainState(model, build_objective(config, model), optimizer, schedule, assignments)


def wrap_for_workers(model: nn.Module, world_size: int, device: torch.device) -> nn.Module:
    """The model itself for one worker, DDP over several."""
    if world_size == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def share_buffers(model: nn.Module, world_size: int) -> None:
    """Give every worker the batch-norm statistics of rank 0, so that all embed alike; every rank must call it.

    During an epoch each worker gathers its own, as DDP only copies them before a step.
    """
    if world_size > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


def write_checkpoint(folder: Path, checkpoint: dict[str, Any]) -> Path:
    """Write `checkpoint.pt` so that a reader finds either the old one or the new one, never half of one."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT_FILE
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(checkpoint, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint file, or the one in a run's folder, without running code from it.

    Raises:
        UserError: no checkpoint, or one that is cut short or not clray's.
    """
    if path.is_dir():
        # A worker group's checkpoints lie in folders that Ray Train names by time.
        of_group = sorted(path.glob(f"{GROUP_FOLDER}/*/{CHECKPOINT_FILE}"))
        path = of_group[-1] if of_group else path / CHECKPOINT_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; give a checkpoint.pt or the folder of a run")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not a complete checkpoint: {str(error).splitlines()[0]}") from error
    if not isinstance(checkpoint, dict) or "cluster_ids" not in checkpoint:
        raise UserError(f"{path}: not a checkpoint of clray")
    return checkpoint
