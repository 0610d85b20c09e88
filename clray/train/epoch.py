"""One epoch of contrastive training; no Ray."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from clray.data.augmentation import draw_views
from clray.train.objectives import Objective


class TrainingError(RuntimeError):
    """Training that cannot go on, such as a loss that is no longer finite."""


@dataclass(frozen=True)
class EpochResult:
    """Means over the steps, images seen by this worker, and where the time went."""

    loss: float
    positives_per_anchor: float
    num_samples: int
    seconds: float
    data_wait_seconds: float


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    schedule: LambdaLR,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    augmentation: nn.Module,
    cluster_ids: Tensor,
    objective: Objective,
    device: torch.device,
    where: str,
) -> EpochResult:
    """Train on every batch once.

    Args:
        batches: uint8 images and their dataset indices.
        cluster_ids: the clusters of each sample of the data set, int64 [granularities, N], on the device.
        where: epoch and worker, for the error message.

    Raises:
        TrainingError: a non-finite loss.
    """
    model.train()
    start = time.perf_counter()
    wait, num_samples = 0.0, 0
    losses: list[Tensor] = []
    positives: list[Tensor] = []
    iterator = iter(batches)
    while True:
        waiting_since = time.perf_counter()
        batch = next(iterator, None)
        wait += time.perf_counter() - waiting_since
        if batch is None:
            break
        images, indices = batch
        views = draw_views(augmentation, images.to(device, non_blocking=True), objective.num_views)
        value = objective(model, views, indices.to(device), cluster_ids)
        optimizer.zero_grad(set_to_none=True)
        value.loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(value.loss.detach())
        positives.append(value.num_positives)
        num_samples += len(images)
    # Read once per epoch: asking for the value at every step would make a GPU wait.
    values = torch.stack(losses).tolist()
    for step, value in enumerate(values):
        if not math.isfinite(value):
            raise TrainingError(
                f"the loss is {value} in {where}, step {step + 1} of {len(values)} (learning rate "
                f"{schedule.get_last_lr()[0]:.3g} at the end of the epoch); lower train.learning_rate or raise "
                "objective.temperature"
            )
    mean_positives = float(torch.stack(positives).mean())
    return EpochResult(sum(values) / len(values), mean_positives, num_samples, time.perf_counter() - start, wait)
