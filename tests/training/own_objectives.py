"""Objectives as a user writes them, right and wrong, imported by their names."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

import clray
from clray.objective.contrastive import ObjectiveValue, cl_infonce
from clray.training.objectives.port import StepValue


class Again(clray.Objective):
    """Cl-InfoNCE once more."""

    def loss(self, batch: clray.EmbeddedBatch) -> ObjectiveValue:
        return cl_infonce(batch.z, batch.cluster_ids, temperature=self.temperature)


class Sharing(Again):
    """Trains a group by clusters that lie in Ray's object store, and by no others."""

    def __call__(self, model: nn.Module, views: Tensor, indices: Tensor, cluster_ids: Tensor, **more: Any) -> StepValue:
        is_rehearsed = not dist.is_initialized()
        assert is_rehearsed or "plasma" in mapping_of(cluster_ids), (
            "the clusters of all images are this worker's own copy"
        )
        return super().__call__(model, views, indices, cluster_ids, **more)


def mapping_of(values: Tensor) -> str:
    """The line of this process's memory map in which a tensor lies."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        start, end = (int(each, 16) for each in line.split()[0].split("-"))
        if start <= values.data_ptr() < end:
            return line
    return ""


class PairsAgain(clray.Objective):
    """The pair-sampled form once more, by its formula."""

    num_views, draws_pairs = 1, True

    def loss(self, batch: clray.EmbeddedBatch) -> Tensor:
        x, y = batch.z[0].chunk(2)
        scores = x @ y.T / self.temperature
        return (scores.logsumexp(1) - np.log(len(x)) - scores.diagonal()).mean()


class Sticky(clray.Objective):
    """Pulls to the centroids that it has heard of, and remembers them; with a second head where there is one."""

    def __init__(self, settings: object, model: nn.Module) -> None:
        super().__init__(settings, model)
        self.centroids: Tensor | None = None
        self.num_heard = 0

    def loss(self, batch: clray.EmbeddedBatch) -> Tensor:
        z = batch.z if batch.second is None else batch.z + batch.second
        if self.centroids is None:
            return -(z[0] * z[1]).sum(dim=1).mean()
        return (z - self.centroids[batch.cluster_ids[0]]).square().sum(dim=2).mean()

    def take_clusters(self, centroids: list, phis: object, *, renamed: bool, seed: int) -> list:  # noqa: ARG002
        self.centroids, self.num_heard = torch.from_numpy(centroids[0].copy()), self.num_heard + 1
        return []

    def state_dict(self) -> dict:
        return {"centroids": self.centroids, "num_heard": self.num_heard}

    def load_state_dict(self, state: dict) -> None:
        self.centroids, self.num_heard = state["centroids"], state["num_heard"]


class NoLoss(clray.Objective):
    pass


class NoSubclass:
    def loss(self, batch: object) -> None: ...


class NoViews(Again):
    num_views = 0


class ReturnsNothing(clray.Objective):
    def loss(self, batch: clray.EmbeddedBatch) -> None:
        pass


class ReturnsLosses(clray.Objective):
    def loss(self, batch: clray.EmbeddedBatch) -> Tensor:
        return (batch.z[0] * batch.z[1]).sum(dim=1)


class ReturnsFloat(clray.Objective):
    def loss(self, batch: clray.EmbeddedBatch) -> float:
        return batch.z.mean().item()


class Detached(clray.Objective):
    def loss(self, batch: clray.EmbeddedBatch) -> Tensor:
        return batch.z.detach().mean()


class Unrelated(clray.Objective):
    def loss(self, batch: clray.EmbeddedBatch) -> Tensor:
        return torch.ones((), requires_grad=True) * len(batch.indices)


class NotFinite(clray.Objective):
    def loss(self, batch: clray.EmbeddedBatch) -> Tensor:
        return (batch.z.mean() * 0).log()


class BadGradient(clray.Objective):
    def loss(self, batch: clray.EmbeddedBatch) -> Tensor:
        return (batch.z - batch.z.detach()).square().sum().sqrt()


class WrongShape(clray.Objective):
    def loss(self, batch: clray.EmbeddedBatch) -> Tensor:
        return batch.z @ batch.cluster_ids


class WrongStart(Again):
    def __init__(self) -> None:
        pass


class WrongHearing(Again):
    def take_clusters(self, centroids: list) -> list:
        return centroids


class WrongStep(clray.Objective):
    def __call__(self, model: nn.Module, views: Tensor, indices: Tensor, cluster_ids: Tensor) -> Tensor:  # noqa: ARG002
        return model(views[0]).z.mean()


class WrongState(Again):
    def state_dict(self) -> dict:
        return {"objective": self}


class WrongEmbedding(Again):
    def embedding_model(self, model: nn.Module) -> str:  # noqa: ARG002
        return "model"


def no_class(batch: clray.EmbeddedBatch) -> Tensor:
    return batch.z.mean()


class StepOfItsOwn(clray.Objective):
    def __call__(self, model: nn.Module, views: Tensor, indices: Tensor, cluster_ids: Tensor) -> StepValue:  # noqa: ARG002
        z = model(views[0]).z
        return StepValue(-z.square().sum() + z[:, 0].sum(), z.new_zeros(()), z.detach())


def only_8_pixels(num_channels: int) -> tuple[nn.Module, int]:
    return nn.Sequential(nn.Flatten(), nn.Linear(num_channels * 64, 8)), 8


class Slow(Again):
    """Takes a while for each step of a group, so that something may happen meanwhile."""

    def __call__(self, model: nn.Module, views: Tensor, indices: Tensor, cluster_ids: Tensor, **more: Any) -> StepValue:
        if dist.is_initialized():
            time.sleep(0.5)
        return super().__call__(model, views, indices, cluster_ids, **more)
