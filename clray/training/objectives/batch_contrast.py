"""Cl-InfoNCE within the global batch; InfoNCE and SupCon by the clusters it is given."""

from collections.abc import Callable

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
            return self._of_clusters(cl_infonce, batch.z, batch)
        if self.settings.dual_head_clusters == "instance-head":
            of_images, clusters = batch.z, self._of_clusters(cross_view_cl_infonce, batch.second, batch)
        else:
            of_images, clusters = batch.second, self._of_clusters(cl_infonce, batch.z, batch)
        base_temperature = self.settings.base_temperature
        instance = cl_infonce(
            of_images, batch.indices, temperature=self.temperature, base_temperature=base_temperature
        )  # fmt: skip
        return ObjectiveValue(clusters.loss + instance.loss, clusters.num_positives)

    def _of_clusters(self, contrast: Callable[..., ObjectiveValue], z: Tensor, batch: EmbeddedBatch) -> ObjectiveValue:
        return contrast(
            z,
            batch.cluster_ids,
            temperature=self.temperature,
            base_temperature=self.settings.base_temperature,
            cluster_weight=self.settings.cluster_weight,
            images=batch.indices,
        )
