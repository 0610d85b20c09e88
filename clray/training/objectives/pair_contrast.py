"""Cl-InfoNCE as in the paper's equation, over pairs of images."""

import torch
from torch import Tensor

from clray.objective.contrastive import ObjectiveValue, pair_sampled_cl_infonce
from clray.training.objectives.port import EmbeddedBatch, Objective


class PairContrast(Objective):
    """Cl-InfoNCE over pairs drawn from one cluster, each image augmented once."""

    num_views = 1
    draws_pairs = True

    def loss(self, batch: EmbeddedBatch) -> ObjectiveValue:
        x, y = batch.z[0].chunk(2)
        return self._contrast([(x, y)])

    def small_views_loss(self, small: EmbeddedBatch, batch: EmbeddedBatch) -> ObjectiveValue:
        """Each small view is an anchor before the other images of its pairs."""
        x, y = batch.z[0].chunk(2)
        anchors = [view.chunk(2) for view in small.z]
        return self._contrast([*((of_x, y) for of_x, _ in anchors), *((of_y, x) for _, of_y in anchors)])

    def _contrast(self, pairs: list[tuple[Tensor, Tensor]]) -> ObjectiveValue:
        base = self.settings.base_temperature
        scale = 1.0 if base is None else self.temperature / base
        losses = [pair_sampled_cl_infonce(*each, temperature=self.temperature) for each in pairs]
        loss = torch.stack(losses).mean() * scale
        return ObjectiveValue(loss, loss.new_ones(()))
