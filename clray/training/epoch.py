"""The steps of one epoch of contrastive training; no Ray."""

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from clray.data.augmentation import Augmentation, draw_small_views, draw_views, to_float
from clray.data.images.port import Batch
from clray.data.transfer import to_device
from clray.errors import TrainingError
from clray.training.state import TrainState
from clray.training.stopwatch import Stopwatch


@dataclass
class EpochMeter:
    """What one worker has measured since the epoch began."""

    steps: Stopwatch
    """Of the steps alone: neither waiting for data nor for clusters counts."""
    waits: Stopwatch
    """Of waiting for data; on a GPU, of having nothing to do meanwhile."""
    losses: list[Tensor] = field(default_factory=list)
    """One scalar per step, left on the device: asking for its value at every step would make a GPU wait."""
    positives: list[Tensor] = field(default_factory=list)
    spread: Tensor | None = None
    """1 - |mean z|^2 over the last batch: 0 where all embeddings are equal."""
    num_samples: int = 0

    @classmethod
    def on(cls, device: torch.device) -> "EpochMeter":
        """Of an epoch that begins."""
        return cls(Stopwatch(device), Stopwatch(device))

    def checked_losses(self, where: str, settings: str) -> list[float]:
        """The losses so far.

        Args:
            where, settings: epoch and worker, and what drives the loss, for the error message.

        Raises:
            TrainingError: one is not finite.
        """
        values = torch.stack(self.losses).tolist() if self.losses else []
        for step, value in enumerate(values):
            if not math.isfinite(value):
                raise TrainingError(
                    f"the loss is {value} in {where}, step {step + 1} ({settings}); lower train.learning_rate or "
                    "raise objective.temperature"
                )
        return values

    def state_dict(self) -> dict[str, Any]:
        means = {"losses": self.losses, "positives": self.positives}
        stacked = {name: torch.stack(values).cpu() if values else torch.empty(0) for name, values in means.items()}
        times = {"seconds": self.steps.seconds, "data_wait_seconds": self.waits.seconds}
        return {**stacked, **times, "num_samples": self.num_samples}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> "EpochMeter":
        losses, positives = (list(state[name].to(device).unbind()) for name in ("losses", "positives"))
        steps, waits = (Stopwatch(device, state[name]) for name in ("seconds", "data_wait_seconds"))
        return cls(steps, waits, losses, positives, None, state["num_samples"])


def waited_for(batches: Iterable[Batch], meter: EpochMeter) -> Iterator[Batch]:
    """The batches, with the time that each was waited for."""
    iterator = iter(batches)
    while True:
        with meter.waits.running():
            batch = next(iterator, None)
        if batch is None:
            return
        yield batch


def train_step(
    model: nn.Module,
    state: TrainState,
    batch: Batch,
    meter: EpochMeter,
    *,
    augmentation: Augmentation,
    cluster_ids: Tensor,
    accumulate_batches: int,
) -> None:
    """Train on a batch, the next of the epoch.

    Args:
        model: the state's, possibly wrapped for several workers.
        batch: uint8 images, on the host or on the device, and their dataset indices, on the host.
        cluster_ids: the clusters of each sample of the data set, int32 [granularities, N], on the device.
        accumulate_batches: batches whose gradients are averaged before the optimizer steps; at the end of an epoch
            the last of them may be fewer.
    """
    images, indices = (to_device(each, cluster_ids.device) for each in batch)
    images, num_views = to_float(images), state.objective.num_views
    views = draw_views(augmentation, images, num_views)
    small = draw_small_views(augmentation, images, first=num_views)
    # An objective of the user's need not know of small views where there are none.
    further = {} if small is None else {"small_views": small}
    group = group_of_step(state.step_in_epoch, state.steps_per_epoch, accumulate_batches)
    is_last_part = state.step_in_epoch + 1 == group.stop
    with nullcontext() if is_last_part else _without_exchange(model):
        value = state.objective(model, views, indices, cluster_ids, **further)
        state.scaler.scale(value.loss / len(group)).backward()
    if is_last_part:
        state.scaler.step(state.optimizer)
        state.scaler.update()
        state.optimizer.zero_grad(set_to_none=True)
        state.schedule.step()
    if state.bank is not None:
        state.bank.update(batch[1], value.embeddings)
    meter.losses.append(value.loss.detach())
    meter.positives.append(value.num_positives)
    meter.spread = 1 - value.embeddings.mean(dim=0).square().sum()
    # The second image of a pair stands where another objective has a second view.
    meter.num_samples += len(images) // (2 if state.objective.draws_pairs else 1)
    state.step_in_epoch += 1


def group_of_step(step: int, steps_per_epoch: int, accumulate_batches: int) -> range:
    """The steps of an epoch whose gradients are averaged with this one's; the epoch's last group may be shorter."""
    start = step - step % accumulate_batches
    return range(start, min(start + accumulate_batches, steps_per_epoch))


def _without_exchange(model: nn.Module) -> AbstractContextManager[None]:
    """Leave gradients where they are until the last batch that is accumulated."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) else nullcontext()
