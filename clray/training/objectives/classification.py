"""Cluster prediction and supervised training: cross-entropy in place of contrast."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from clray.config.sections import ObjectiveConfig
from clray.data.transfer import to_device
from clray.model.encoder import ContrastiveModel
from clray.training.objectives.port import EmbeddedBatch, Objective


class Classification(Objective):
    """Cross-entropy of a linear classifier on the representation: of cluster ids, or of labels.

    The classifier starts anew where k-means has renamed the clusters.
    """

    def __init__(self, settings: ObjectiveConfig, model: ContrastiveModel) -> None:
        super().__init__(settings, model)
        assert isinstance(model.second, nn.Linear), "a classification has a linear classifier on h"
        self.classifier = model.second

    def loss(self, batch: EmbeddedBatch) -> Tensor:
        assert batch.second is not None, "a classification has a classifier"
        ids = batch.cluster_ids[0].long().repeat(len(batch.second))
        return F.cross_entropy(batch.second.flatten(0, 1), ids)

    def small_views_loss(self, small: EmbeddedBatch, batch: EmbeddedBatch) -> Tensor:
        return self.loss(small)

    def take_clusters(
        self,
        centroids: list[np.ndarray],
        phis: list[np.ndarray] | None,
        *,
        renamed: bool,
        seed: int,
    ) -> list[nn.Parameter]:
        if not renamed:
            return []
        # As torch.nn.Linear starts, by a generator that is the same on every worker.
        generator = torch.Generator().manual_seed(seed)
        bound = self.classifier.in_features**-0.5
        parameters = list(self.classifier.parameters())
        with torch.no_grad():
            for parameter in parameters:
                drawn = torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator)
                parameter.copy_(to_device(drawn, parameter.device))
        return parameters
