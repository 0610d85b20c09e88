"""SwAV: each view predicts the other's code, and the codes of a batch use all prototypes evenly."""

from torch import Tensor

from clray.objective.equipartition import swapped_prediction
from clray.training.objectives.port import EmbeddedBatch, Objective


class Equipartition(Objective):
    """Swapped prediction of balanced codes by trained prototypes; no k-means, no negatives.

    Deviates from the authors' code (Caron et al., arXiv 2006.09882): prototypes train from the first step, views are
    those of the other objectives, and there is no queue of earlier embeddings.
    """

    def loss(self, batch: EmbeddedBatch) -> Tensor:
        assert batch.second is not None, "the model has prototypes"
        return swapped_prediction(
            batch.second,
            temperature=self.temperature,
            epsilon=self.settings.sinkhorn_epsilon,
            num_iterations=self.settings.sinkhorn_iterations,
        )
