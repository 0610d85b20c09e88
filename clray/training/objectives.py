"""What a step of training minimises: each objective with the state it carries from step to step.

The formulas are in `clray.objective`; here they meet the model, the views and the clusters.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clray.config import Config
from clray.config.sections import ObjectiveConfig
from clray.model.encoder import ContrastiveModel, Outputs
from clray.objective.contrastive import (
    ObjectiveValue,
    cl_infonce,
    contrast,
    instance_contrast,
    pair_sampled_cl_infonce,
)
from clray.objective.gather import all_gather
from clray.objective.prototypes import proto_nce


@dataclass(frozen=True)
class StepValue:
    """What an objective makes of a batch.

    Attributes:
        loss: of this worker, a float32 scalar.
        num_positives: per anchor, the mean over the global batch.
        embeddings: of the model that is clustered, one per image, detached, float32 [batch, dim].
    """

    loss: Tensor
    num_positives: Tensor
    embeddings: Tensor


class Objective(Protocol):
    """The loss of one step.

    Attributes:
        num_views: views of each image of a batch.
        draws_pairs: whether a batch holds pairs of images of one cluster, the second halves behind the first.
    """

    num_views: int
    draws_pairs: bool

    def __call__(self, model: nn.Module, views: Tensor, indices: Tensor, cluster_ids: Tensor) -> StepValue:
        """Loss of a batch.

        Args:
            model: returns `Outputs`; may be wrapped for several workers.
            views: float [num_views, batch, channels, height, width].
            indices: dataset indices of the batch, int64 [batch].
            cluster_ids: clusters of all samples, int32 [granularities, N].
        """
        ...

    def embedding_model(self, model: ContrastiveModel) -> ContrastiveModel:
        """The model whose embeddings are clustered."""
        ...

    def take_clusters(
        self, centroids: list[np.ndarray], phis: list[np.ndarray] | None, *, renamed: bool, seed: int
    ) -> list[nn.Parameter]:
        """Hear of new k-means clusters; `renamed` where their ids have nothing to do with those before.

        Every worker is told the same, `seed` included.

        Returns:
            The parameters that were drawn anew, whose gradients and moments mean nothing any more.
        """
        ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class _Stateless:
    """Nothing to carry, nothing to hear."""

    num_views = 2
    draws_pairs = False

    def embedding_model(self, model: ContrastiveModel) -> ContrastiveModel:
        return model

    def take_clusters(
        self, centroids: list[np.ndarray], phis: list[np.ndarray] | None, *, renamed: bool, seed: int
    ) -> list[nn.Parameter]:
        return []

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class BatchContrast(_Stateless):
    """Cl-InfoNCE within the global batch, with a second head under InfoNCE where the model has one."""

    def __init__(self, config: ObjectiveConfig) -> None:
        self.temperature, self.base_temperature = config.temperature, config.base_temperature

    def __call__(self, model: nn.Module, views: Tensor, indices: Tensor, cluster_ids: Tensor) -> StepValue:
        outputs = model(views.flatten(0, 1))
        z = outputs.z.unflatten(0, views.shape[:2])
        value = self._contrast(z, cluster_ids[:, indices])
        loss = value.loss
        if outputs.second is not None:
            loss = loss + self._contrast(outputs.second.unflatten(0, views.shape[:2]), indices).loss
        return StepValue(loss, value.num_positives, _mean_of_views(z))

    def _contrast(self, z: Tensor, ids: Tensor) -> ObjectiveValue:
        return cl_infonce(z, ids, temperature=self.temperature, base_temperature=self.base_temperature)


class PairContrast(_Stateless):
    """Cl-InfoNCE over pairs drawn from one cluster, each image augmented once."""

    num_views = 1
    draws_pairs = True

    def __init__(self, config: ObjectiveConfig) -> None:
        self.temperature = config.temperature
        self.scale = 1.0 if config.base_temperature is None else config.temperature / config.base_temperature

    def __call__(self, model: nn.Module, views: Tensor, indices: Tensor, cluster_ids: Tensor) -> StepValue:
        z = model(views[0]).z
        x, y = z.chunk(2)
        loss = pair_sampled_cl_infonce(x, y, temperature=self.temperature) * self.scale
        return StepValue(loss, loss.new_ones(()), z.detach())


class QueueContrast(_Stateless):
    """Cl-InfoNCE of queries against the keys of a momentum encoder, of this batch and of those before it.

    The queue keeps dataset indices beside the keys, so that their clusters are those of the assignment in use.

    Source: He et al., arXiv 1911.05722 (MoCo). It starts empty, where MoCo's starts with random vectors, and batch
    normalisation is not shuffled over workers.
    """

    def __init__(self, config: ObjectiveConfig, model: ContrastiveModel) -> None:
        self.temperature, self.base_temperature = config.temperature, config.base_temperature
        self.momentum, self.size = config.key_momentum, config.queue_size
        self.key_model = deepcopy(model).requires_grad_(False)
        parameter = next(model.parameters())
        self.keys = torch.empty(0, 0, device=parameter.device)
        self.key_indices = torch.empty(0, dtype=torch.int64, device=parameter.device)

    def __call__(self, model: nn.Module, views: Tensor, indices: Tensor, cluster_ids: Tensor) -> StepValue:
        queries = model(views[0]).z
        own_keys = self._own_keys(model, views[1])
        keys, key_indices = all_gather(own_keys).flatten(0, 1), all_gather(indices).flatten()
        value = self._value(queries, indices, keys, key_indices, cluster_ids)
        self.keys = torch.cat([keys, self.keys.reshape(-1, keys.shape[1])])[: self.size]
        self.key_indices = torch.cat([key_indices, self.key_indices])[: self.size]
        scale = 1.0 if self.base_temperature is None else self.temperature / self.base_temperature
        return StepValue(value.loss * scale, value.num_positives, own_keys)

    def _value(
        self, queries: Tensor, indices: Tensor, keys: Tensor, key_indices: Tensor, cluster_ids: Tensor
    ) -> ObjectiveValue:
        candidates = torch.cat([keys, self.keys.reshape(-1, keys.shape[1])])
        candidate_indices = torch.cat([key_indices, self.key_indices])
        ids, candidate_ids = cluster_ids[:, indices], cluster_ids[:, candidate_indices]
        return contrast(queries, ids, candidates, candidate_ids, own=None, temperature=self.temperature)

    @torch.no_grad()
    def _own_keys(self, model: nn.Module, view: Tensor) -> Tensor:
        """Keys of the local batch, by the momentum encoder after its update."""
        base = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        for key, query in zip(self.key_model.parameters(), base.parameters(), strict=True):
            key.lerp_(query, 1 - self.momentum)
        self.key_model.train()
        outputs: Outputs = self.key_model(view)
        return outputs.z

    def embedding_model(self, model: ContrastiveModel) -> ContrastiveModel:
        return self.key_model

    def state_dict(self) -> dict[str, Any]:
        return {"key_model": self.key_model.state_dict(), "keys": self.keys, "key_indices": self.key_indices}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.key_model.load_state_dict(state["key_model"])
        self.keys = state["keys"].to(self.keys.device)
        self.key_indices = state["key_indices"].to(self.keys.device)


class PrototypeContrast(QueueContrast):
    """PCL: InfoNCE against a queue, and from the first clustering on ProtoNCE against the centroids.

    Source: Li et al., arXiv 2005.04966, algorithm 1.
    """

    def __init__(self, config: ObjectiveConfig, model: ContrastiveModel) -> None:
        super().__init__(config, model)
        self.prototypes: list[Tensor] = []
        self.phis: list[Tensor] = []

    def _value(
        self, queries: Tensor, indices: Tensor, keys: Tensor, key_indices: Tensor, cluster_ids: Tensor
    ) -> ObjectiveValue:
        own = torch.searchsorted(key_indices.sort().values, indices)
        own_keys = keys[key_indices.argsort()[own]]
        queue = self.keys.reshape(-1, keys.shape[1])
        value = instance_contrast(queries, own_keys, queue, temperature=self.temperature)
        if not self.prototypes:
            return value
        loss = value.loss + proto_nce(queries, cluster_ids[:, indices], self.prototypes, self.phis)
        return ObjectiveValue(loss, value.num_positives)

    def take_clusters(
        self, centroids: list[np.ndarray], phis: list[np.ndarray] | None, *, renamed: bool, seed: int
    ) -> list[nn.Parameter]:
        assert phis is not None, "reclustering for pcl computes concentrations"
        device = self.keys.device
        self.prototypes = [F.normalize(torch.from_numpy(each).to(device), dim=1) for each in centroids]
        self.phis = [torch.from_numpy(each).to(device) for each in phis]
        return []

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "prototypes": self.prototypes, "phis": self.phis}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        device = self.keys.device
        self.prototypes = [each.to(device) for each in state["prototypes"]]
        self.phis = [each.to(device) for each in state["phis"]]


class Classification(_Stateless):
    """Cross-entropy of a linear classifier on the representation: of cluster ids, or of labels.

    The classifier starts anew where k-means has renamed the clusters.
    """

    def __init__(self, model: ContrastiveModel) -> None:
        assert isinstance(model.second, nn.Linear), "a classification has a linear classifier on h"
        self.classifier = model.second

    def __call__(self, model: nn.Module, views: Tensor, indices: Tensor, cluster_ids: Tensor) -> StepValue:
        outputs = model(views.flatten(0, 1))
        loss = F.cross_entropy(outputs.second, cluster_ids[0, indices].long().repeat(len(views)))
        return StepValue(loss, loss.new_zeros(()), _mean_of_views(outputs.z.unflatten(0, views.shape[:2])))

    def take_clusters(
        self, centroids: list[np.ndarray], phis: list[np.ndarray] | None, *, renamed: bool, seed: int
    ) -> list[nn.Parameter]:
        if not renamed:
            return []
        # As torch.nn.Linear starts, by a generator that is the same on every worker.
        generator = torch.Generator().manual_seed(seed)
        bound = self.classifier.in_features**-0.5
        parameters = list(self.classifier.parameters())
        with torch.no_grad():
            for parameter in parameters:
                parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))
        return parameters


def _mean_of_views(z: Tensor) -> Tensor:
    """One unit-length embedding of each image, [batch, dim]."""
    return F.normalize(z.detach().mean(dim=0), dim=1)


def build_objective(config: Config, model: ContrastiveModel) -> Objective:
    """The objective that the config names, for an unwrapped model."""
    settings = config.objective
    if settings.is_classification:
        return Classification(model)
    if settings.name == "pcl":
        return PrototypeContrast(settings, model)
    if settings.negatives == "queue":
        return QueueContrast(settings, model)
    if settings.form == "pair-sampled":
        return PairContrast(settings)
    return BatchContrast(settings)
