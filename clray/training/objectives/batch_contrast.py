"""Cl-InfoNCE within the global batch; InfoNCE and SupCon by the clusters it is given."""

from torch import Tensor

from clray.objective.contrastive import ObjectiveValue, cl_infonce, cross_view_cl_infonce
from clray.training.objectives.port import EmbeddedBatch, Objective


class BatchContrast(Objective):
    """Cl-InfoNCE, with a second head where the model has one.

    Of two heads one is under InfoNCE. That is the second, or with `dual_head_clusters: instance-head` the first, whose
    embedding is clustered; the second then is under Cl-InfoNCE across views.
    """

    def loss(self, batch: EmbeddedBatch) -> ObjectiveValue:
        if batch.second is None:
            return self._contrast(batch.z, batch.cluster_ids)
        if self.settings.dual_head_clusters == "instance-head":
            instance, clusters = self._contrast(batch.z, batch.indices), self._across_views(batch)
        else:
            instance, clusters = self._contrast(batch.second, batch.indices), self._contrast(batch.z, batch.cluster_ids)
        return ObjectiveValue(clusters.loss + instance.loss, clusters.num_positives)

    def _across_views(self, batch: EmbeddedBatch) -> ObjectiveValue:
        assert batch.second is not None, "the model has two heads"
        return cross_view_cl_infonce(
            batch.second,
            batch.cluster_ids,
            temperature=self.temperature,
            base_temperature=self.settings.base_temperature,
        )

    def _contrast(self, z: Tensor, ids: Tensor) -> ObjectiveValue:
        return cl_infonce(
            z, ids, temperature=self.temperature, base_temperature=self.settings.base_temperature
        )  # fmt: skip
