"""Cl-InfoNCE as in the paper's equation, over pairs of images."""

from clray.objective.contrastive import ObjectiveValue, pair_sampled_cl_infonce
from clray.training.objectives.port import EmbeddedBatch, Objective


class PairContrast(Objective):
    """Cl-InfoNCE over pairs drawn from one cluster, each image augmented once."""

    num_views = 1
    draws_pairs = True

    def loss(self, batch: EmbeddedBatch) -> ObjectiveValue:
        x, y = batch.z[0].chunk(2)
        base = self.settings.base_temperature
        scale = 1.0 if base is None else self.temperature / base
        loss = pair_sampled_cl_infonce(x, y, temperature=self.temperature) * scale
        return ObjectiveValue(loss, loss.new_ones(()))
