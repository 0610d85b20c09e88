"""PCL: contrast of instances, and of each query with the centroids."""

from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from clray.config.sections import ObjectiveConfig
from clray.data.transfer import to_device
from clray.model.encoder import ContrastiveModel
from clray.objective.contrastive import ObjectiveValue, instance_contrast
from clray.objective.prototypes import proto_nce
from clray.training.objectives.queue_contrast import QueueContrast


class PrototypeContrast(QueueContrast):
    """PCL: InfoNCE against a queue, and from the first clustering on ProtoNCE against the centroids.

    Source: Li et al., arXiv 2005.04966, algorithm 1.
    """

    uses_concentrations = True

    def __init__(self, settings: ObjectiveConfig, model: ContrastiveModel) -> None:
        super().__init__(settings, model)
        self.prototypes: list[Tensor] = []
        self.phis: list[Tensor] = []

    def _value(self, queries: Tensor, indices: Tensor, own_keys: Tensor, cluster_ids: Tensor) -> ObjectiveValue:
        value = instance_contrast(queries, own_keys, self.queue.older(), temperature=self.temperature)
        if not self.prototypes:
            return value
        loss = value.loss + proto_nce(queries, cluster_ids[:, indices], self.prototypes, self.phis)
        return ObjectiveValue(loss, value.num_positives)

    def take_clusters(
        self,
        centroids: list[np.ndarray],
        phis: list[np.ndarray] | None,
        *,
        renamed: bool,
        seed: int,
    ) -> list[nn.Parameter]:
        assert phis is not None, "reclustering for pcl computes concentrations"
        self.prototypes = [F.normalize(to_device(each, self.device), dim=1) for each in centroids]
        self.phis = [to_device(each, self.device) for each in phis]
        return []

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "prototypes": self.prototypes, "phis": self.phis}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.prototypes = [each.to(self.device) for each in state["prototypes"]]
        self.phis = [each.to(self.device) for each in state["phis"]]
