"""SwAV: each view predicts the other's code, and the codes of a batch use all prototypes evenly."""

from typing import Any

from torch import Tensor

from clray.objective.equipartition import prediction_by_small_views, swapped_prediction
from clray.training.objectives.port import EmbeddedBatch, Objective


class Equipartition(Objective):
    """Swapped prediction of balanced codes by trained prototypes; no k-means, no negatives.

    Deviates from the authors' code (Caron et al., arXiv 2006.09882): prototypes train from the first step, views are
    those of the other objectives, and there is no queue of earlier embeddings.
    """

    def loss(self, batch: EmbeddedBatch) -> Tensor:
        assert batch.second is not None, "the model has prototypes"
        return swapped_prediction(batch.second, **self._settings)

    def small_views_loss(self, small: EmbeddedBatch, batch: EmbeddedBatch) -> Tensor:
        """Each predicts the codes of the views, and has none itself."""
        assert small.second is not None, "the model has prototypes"
        assert batch.second is not None, "the model has prototypes"
        return prediction_by_small_views(small.second, batch.second, **self._settings)

    @property
    def _settings(self) -> dict[str, Any]:
        settings = self.settings
        return {
            "temperature": self.temperature,
            "epsilon": settings.sinkhorn_epsilon,
            "num_iterations": settings.sinkhorn_iterations,
        }
