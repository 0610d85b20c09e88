"""Cl-InfoNCE within the global batch; InfoNCE and SupCon by the clusters it is given."""

from torch import Tensor

from clray.objective.contrastive import ObjectiveValue, cl_infonce
from clray.training.objectives.port import EmbeddedBatch, Objective


class BatchContrast(Objective):
    """Cl-InfoNCE, with a second head under InfoNCE where the model has one."""

    def loss(self, batch: EmbeddedBatch) -> ObjectiveValue:
        value = self._contrast(batch.z, batch.cluster_ids)
        if batch.second is None:
            return value
        return ObjectiveValue(value.loss + self._contrast(batch.second, batch.indices).loss, value.num_positives)

    def _contrast(self, z: Tensor, ids: Tensor) -> ObjectiveValue:
        return cl_infonce(
            z, ids, temperature=self.temperature, base_temperature=self.settings.base_temperature
        )  # fmt: skip
