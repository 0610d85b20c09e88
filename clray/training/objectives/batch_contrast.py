"""Cl-InfoNCE within the global batch; InfoNCE and SupCon by the clusters it is given."""

from collections.abc import Callable
from functools import partial

from torch import Tensor

from clray.objective.contrastive import (
    ObjectiveValue,
    cl_infonce,
    cl_infonce_of_small_views,
    cross_view_cl_infonce,
    mean_value,
)
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
        return self._with_images(cl_infonce, of_images, batch, clusters)

    def small_views_loss(self, small: EmbeddedBatch, batch: EmbeddedBatch) -> ObjectiveValue:
        of_z = partial(cl_infonce_of_small_views, small.z)
        if small.second is None or batch.second is None:
            return self._of_clusters(of_z, batch.z, batch)
        of_second = partial(cl_infonce_of_small_views, small.second)
        if self.settings.dual_head_clusters == "instance-head":
            across = [self._of_clusters(of_second, view, batch) for view in batch.second.split(1)]
            return self._with_images(of_z, batch.z, batch, mean_value(across))
        return self._with_images(of_second, batch.second, batch, self._of_clusters(of_z, batch.z, batch))

    def _of_clusters(self, contrast: Callable[..., ObjectiveValue], z: Tensor, batch: EmbeddedBatch) -> ObjectiveValue:
        return contrast(
            z,
            batch.cluster_ids,
            temperature=self.temperature,
            base_temperature=self.settings.base_temperature,
            cluster_weight=self.settings.cluster_weight,
            images=batch.indices,
        )

    def _with_images(
        self, contrast: Callable[..., ObjectiveValue], z: Tensor, batch: EmbeddedBatch, clusters: ObjectiveValue
    ) -> ObjectiveValue:
        """The loss of one head by clusters and, added to it, that of the other by images."""
        base_temperature = self.settings.base_temperature
        instance = contrast(z, batch.indices, temperature=self.temperature, base_temperature=base_temperature)
        return ObjectiveValue(clusters.loss + instance.loss, clusters.num_positives)
