"""CCL-K within the global batch: contrast with positives weighted by a kernel of the images' values."""

from torch import Tensor

from clray.config.sections import ObjectiveConfig
from clray.objective.contrastive import ObjectiveValue
from clray.objective.kernel import Kernel, ccl_k
from clray.training.objectives.port import EmbeddedBatch, Objective


class KernelContrast(Objective):
    """CCL-K, weakly supervised; the values of all images lie beside the model, float32 [N, dim]."""

    values: Tensor | None = None

    def take_values(self, values: Tensor) -> None:
        self.values = values

    def loss(self, batch: EmbeddedBatch) -> ObjectiveValue:
        return self._contrast(batch)

    def small_views_loss(self, small: EmbeddedBatch, batch: EmbeddedBatch) -> ObjectiveValue:
        """Small views are anchors of the same weights."""
        return self._contrast(batch, small.z)

    def _contrast(self, batch: EmbeddedBatch, small: Tensor | None = None) -> ObjectiveValue:
        assert self.values is not None, "ccl-k is told the values before its first step"
        settings = self.settings
        return ccl_k(
            batch.z,
            batch.indices,
            self.values,
            kernel=kernel_of(settings),
            temperature=self.temperature,
            base_temperature=settings.base_temperature,
            form=settings.kernel_form,
            small=small,
        )


def kernel_of(settings: ObjectiveConfig) -> Kernel:
    """How the config compares values."""
    return Kernel(settings.kernel, settings.bandwidth, settings.ridge)
