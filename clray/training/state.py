"""What a run carries from step to step, and what of it a checkpoint holds.

Random generators are not stored: each step derives its own from (run seed, component, step, rank).
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import LambdaLR

from clray.clusters.assignment import ClusterAssignment
from clray.config import Config
from clray.errors import UserError
from clray.model.encoder import ContrastiveModel
from clray.redaction import hide_in_tree
from clray.training.bank import EmbeddingBank
from clray.training.checkpoint_form import Checkpoint
from clray.training.encoder_start import fresh_model
from clray.training.objectives.build import build_objective
from clray.training.objectives.port import Objective
from clray.training.optim import build_optimizer, build_schedule
from clray.training.precision import gradient_scaler
from clray.training.start import Start, num_classes
from clray.training.workers.port import Session


@dataclass
class TrainState:
    """Model, objective, optimizer, schedule, the position in the run, and the cluster assignments in use."""

    model: ContrastiveModel
    objective: Objective
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    assignments: tuple[ClusterAssignment, ...]
    """One per granularity."""
    steps_per_epoch: int
    bank: EmbeddingBank | None = None
    confident: np.ndarray | None = None
    """The members of the clusters that count as such, bool [granularities, N]; None where all do."""
    centroids: list[np.ndarray] | None = None
    epoch: int = 0
    """The epoch in training, from 0."""
    step_in_epoch: int = 0
    """Steps of it that are done."""
    clustered_step: int | None = None
    """The step whose embeddings gave the assignments; None before the first clustering."""
    order_ids: np.ndarray | None = None
    """Clusters at the start of the epoch, by which its order of images was drawn."""
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler(enabled=False))
    """Keeps gradients of float16 above what it can hold; does nothing for others."""

    @property
    def step(self) -> int:
        """Steps trained since the run began."""
        return self.epoch * self.steps_per_epoch + self.step_in_epoch

    @property
    def age_epochs(self) -> float:
        """Epochs from the embeddings of the assignments to the start of this epoch."""
        start = self.epoch * self.steps_per_epoch
        return max(0, start - (self.clustered_step or 0)) / self.steps_per_epoch

    def to_checkpoint(self, config: Config, num_channels: int) -> dict[str, Any]:
        """What all workers hold alike of a `Checkpoint`, as tensors and plain values."""
        return {
            "config": hide_in_tree(config.model_dump(mode="json")),
            "num_channels": num_channels,
            "epoch": self.epoch,
            "step_in_epoch": self.step_in_epoch,
            "steps_per_epoch": self.steps_per_epoch,
            "clustered_step": self.clustered_step,
            "order_ids": None if self.order_ids is None else torch.tensor(self.order_ids),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            **({"scaler": self.scaler.state_dict()} if self.scaler.is_enabled() else {}),
            "objective": self.objective.state_dict(),
            "cluster_ids": torch.from_numpy(np.stack([each.ids for each in self.assignments])),
            "num_clusters": [each.num_clusters for each in self.assignments],
            "cluster_source": self.assignments[0].source,
            "confident": None if self.confident is None else torch.tensor(self.confident),
            "centroids": None if self.centroids is None else [torch.tensor(each) for each in self.centroids],
        }

    def load_checkpoint(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint of the same config and data.

        Raises:
            UserError: the checkpoint is of another data set, lacks what its workers held alone, or counts its steps
                otherwise.
        """
        if "num_parts" in checkpoint:
            raise UserError(
                f"holds what {checkpoint['num_parts']} workers share, and not what each held alone; resume where their "
                "files lie, in the run's folder or in train.storage_path, with more than one worker"
            )
        ids, num_images = checkpoint["cluster_ids"].numpy(), len(self.assignments[0])
        if ids.shape[1] != num_images:
            raise UserError(
                f"the checkpoint assigns {ids.shape[1]} training images, the data hold {num_images}; "
                "resume with the data it was trained on, or start a new run"
            )
        steps = checkpoint["steps_per_epoch"]
        if steps is not None and steps != self.steps_per_epoch:
            raise UserError(
                f"the checkpoint has {steps} steps an epoch, this run {self.steps_per_epoch}; resume with the "
                "train.num_workers that it was trained with, or start a new run"
            )
        self.model.load_state_dict(checkpoint["model"])
        self._load_optimizer(checkpoint["optimizer"], checkpoint["schedule"])
        if self.scaler.is_enabled() and "scaler" in checkpoint:
            self.scaler.load_state_dict(checkpoint["scaler"])
        self.epoch, self.step_in_epoch = checkpoint["epoch"], checkpoint["step_in_epoch"]
        self.clustered_step = checkpoint["clustered_step"]
        order_ids = checkpoint["order_ids"]
        self.order_ids = None if order_ids is None else order_ids.numpy().astype(np.int32, copy=False)
        if self.bank is not None and checkpoint["bank"] is not None:
            self.bank.load_rows(checkpoint["bank"])
        self.objective.load_state_dict(checkpoint["objective"])
        self.assignments = tuple(
            ClusterAssignment(each, num_clusters, checkpoint["cluster_source"])
            for each, num_clusters in zip(ids, checkpoint["num_clusters"], strict=True)
        )
        confident = checkpoint["confident"]
        self.confident = None if confident is None else confident.numpy()
        saved = checkpoint["centroids"]
        self.centroids = None if saved is None else [each.numpy() for each in saved]

    def share(self, session: Session) -> None:
        """Give up this worker's own copy of what a checkpoint holds of every image; every rank must call it."""
        self.assignments = tuple(_shared(each, session) for each in self.assignments)
        confident, order_ids = self.confident, self.order_ids
        self.confident = None if confident is None else session.share(lambda: confident)
        self.order_ids = None if order_ids is None else session.share(lambda: order_ids)

    def _load_optimizer(self, optimizer: dict[str, Any], schedule: dict[str, Any]) -> None:
        """Moments and position are the checkpoint's; rates, momentum and decay the config's.

        Population-based training may have changed these since the checkpoint was written.
        """
        settings = [
            {key: value for key, value in group.items() if key != "params"} for group in self.optimizer.param_groups
        ]
        self.optimizer.load_state_dict(optimizer)
        rates = self.schedule.base_lrs
        self.schedule.load_state_dict(schedule)
        self.schedule.base_lrs = rates
        factors = (rule(self.schedule.last_epoch) for rule in self.schedule.lr_lambdas)
        for group, own, rate, factor in zip(self.optimizer.param_groups, settings, rates, factors, strict=True):
            group.update(own)
            group["initial_lr"], group["lr"] = rate, rate * factor


def _shared(assignment: ClusterAssignment, session: Session) -> ClusterAssignment:
    return replace(assignment, ids=session.share(lambda: assignment.ids))


def create_state(
    config: Config,
    *,
    num_channels: int,
    steps_per_epoch: int,
    start: Start,
    device: torch.device,
    shard: np.ndarray,
    world_size: int = 1,
) -> TrainState:
    """A fresh state; `shard` holds this worker's dataset indices."""
    model = start.model
    if model is None:
        model = fresh_model(config, num_channels, num_classes(config, start.assignments))
    if config.train.sync_batch_norm and world_size > 1 and device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model = model.to(device)
    optimizer = build_optimizer(model, config.train, config.encoder)
    schedule = build_schedule(optimizer, config.train, math.ceil(steps_per_epoch / config.train.accumulate_batches))
    bank = None
    if config.clusters.source == "kmeans" and config.recluster.embeddings == "bank":
        bank = EmbeddingBank(shard, model.embedding_dim, device, momentum=config.recluster.bank_momentum)
    objective = build_objective(config.objective, model)
    values = start.assignments[0].values
    if values is not None:
        objective.take_values(torch.tensor(values, device=device))
    scaler = gradient_scaler(config.train.precision, device)
    return TrainState(model, objective, optimizer, schedule, start.assignments, steps_per_epoch, bank, scaler=scaler)


def freeze_encoder(state: TrainState, frozen: bool) -> None:
    """Leave the encoder as it is, or train it again; the momentum encoder too, where the objective has one."""
    for model in (state.model, state.objective.embedding_model(state.model)):
        model.freeze_encoder(frozen)


def wrap_for_workers(model: ContrastiveModel, world_size: int, device: torch.device) -> nn.Module:
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
