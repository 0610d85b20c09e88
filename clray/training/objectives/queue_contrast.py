"""Cl-InfoNCE against a queue of keys."""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from clray.config.sections import ObjectiveConfig
from clray.model.encoder import ContrastiveModel, Outputs
from clray.objective.contrastive import ObjectiveValue, contrast, weighted_ids
from clray.objective.gather import all_gather_with_ids
from clray.training.objectives.key_queue import KeyQueue
from clray.training.objectives.port import Objective, StepValue


class QueueContrast(Objective):
    """Cl-InfoNCE of queries against the keys of a momentum encoder, of this batch and of those before it.

    The queue keeps dataset indices beside the keys, so that their clusters are those of the assignment in use.

    Source: He et al., arXiv 1911.05722 (MoCo). It starts empty, where MoCo's starts with random vectors, and batch
    normalisation is not shuffled over workers.
    """

    def __init__(self, settings: ObjectiveConfig, model: ContrastiveModel) -> None:
        super().__init__(settings, model)
        self.momentum = settings.key_momentum
        self.key_model = deepcopy(model).requires_grad_(False)
        self.device = next(model.parameters()).device
        self.queue = KeyQueue(settings.queue_size, self.device)

    def __call__(
        self,
        model: nn.Module,
        views: Tensor,
        indices: Tensor,
        cluster_ids: Tensor,
        small_views: Tensor | None = None,
    ) -> StepValue:
        """The first view and the small views are queries; keys are of the second view."""
        small = [] if small_views is None else [small_views.flatten(0, 1)]
        queries = model(views[0], *small).z
        own_keys = self._own_keys(model, views[1])
        keys, (key_indices,) = all_gather_with_ids(own_keys, indices[None])
        self.queue.push(keys, key_indices)
        num_queries = len(queries) // len(indices)
        value = self._value(queries, indices.repeat(num_queries), own_keys.repeat(num_queries, 1), cluster_ids)
        base = self.settings.base_temperature
        scale = 1.0 if base is None else self.temperature / base
        return StepValue(value.loss * scale, value.num_positives, own_keys)

    def _value(self, queries: Tensor, indices: Tensor, own_keys: Tensor, cluster_ids: Tensor) -> ObjectiveValue:
        """Args: own_keys: of the local batch, which the queue holds already, with those of the other workers."""
        candidates, candidate_indices = self.queue.all()
        weight = self.settings.cluster_weight
        ids, candidate_ids = (weighted_ids(cluster_ids[:, each], each, weight) for each in (indices, candidate_indices))
        return contrast(
            queries,
            ids,
            candidates,
            candidate_ids,
            own=None,
            temperature=self.temperature,
            cluster_weight=weight,
        )

    @torch.no_grad()
    def _own_keys(self, model: nn.Module, view: Tensor) -> Tensor:
        """Keys of the local batch, by the momentum encoder after its update."""
        base = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
        torch._foreach_lerp_(list(self.key_model.parameters()), list(base.parameters()), 1 - self.momentum)
        self.key_model.train()
        outputs: Outputs = self.key_model(view)
        return outputs.z

    def embedding_model(self, model: ContrastiveModel) -> ContrastiveModel:
        return self.key_model

    def state_dict(self) -> dict[str, Any]:
        return {"key_model": self.key_model.state_dict(), **self.queue.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.key_model.load_state_dict(state["key_model"])
        self.queue.load_state_dict(state)
