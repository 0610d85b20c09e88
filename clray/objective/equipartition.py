"""Swapped prediction of codes that divide a batch evenly over prototypes (SwAV).

Source: Caron et al., arXiv 2006.09882, sections 3.1 and 3.2, and the authors' code (facebookresearch/swav,
distributed_sinkhorn in main_swav.py).
"""

from itertools import permutations

import torch
from jaxtyping import Float
from torch import Tensor

from clray.objective.contrastive import require_temperature
from clray.objective.gather import all_gather


@torch.no_grad()
def balanced_codes(
    similarities: Float[Tensor, "batch prototypes"], *, epsilon: float, num_iterations: int
) -> Float[Tensor, "batch prototypes"]:
    """Soft assignments, rows adding up to 1, that give every prototype nearly the same share of the global batch.

    Sinkhorn-Knopp on exp(similarities / epsilon): each iteration scales the columns to equal sums, over the batches of
    all workers, and then the rows. The result does not depend on how the batch is split over workers.

    Args:
        similarities: of the local batch's embeddings to the prototypes, finite.
        epsilon: of the entropy; small values make the codes hard, and the division even after more iterations alone.
    """
    logs = similarities.float() / epsilon
    for _ in range(num_iterations):
        # In logarithms, as exp(1 / epsilon) overflows for a small epsilon.
        logs = logs - all_gather(logs.logsumexp(dim=0)).logsumexp(dim=0)
        logs = logs.log_softmax(dim=1)
    return logs.exp()


def swapped_prediction(
    similarities: Float[Tensor, "views batch prototypes"], *, temperature: float, epsilon: float, num_iterations: int
) -> Float[Tensor, ""]:
    """Mean over images and ordered pairs of views (v, w) of  -sum_k q_wk log softmax(s_v / t)_k, q the balanced codes.

    Codes have no gradient. The mean over workers is the loss of the global batch.

    Args:
        similarities: s, of unit-length embeddings to unit-length prototypes.
        temperature: t > 0.
        epsilon, num_iterations: see `balanced_codes`.
    """
    require_temperature(temperature)
    similarities = similarities.float()
    codes = _codes(similarities, epsilon, num_iterations)
    predicted = (similarities / temperature).log_softmax(dim=2)
    pairs = list(permutations(range(len(similarities)), 2))
    return -torch.stack([(codes[w] * predicted[v]).sum(dim=1).mean() for v, w in pairs]).mean()


def prediction_by_small_views(
    small: Float[Tensor, "small_views batch prototypes"],
    similarities: Float[Tensor, "views batch prototypes"],
    *,
    temperature: float,
    epsilon: float,
    num_iterations: int,
) -> Float[Tensor, ""]:
    """Mean over images, small views s and views w of  -sum_k q_wk log softmax(s / t)_k, q the codes of the views alone.

    Args:
        small: similarities of the small views. The others are those of `swapped_prediction`.

    Source: Caron et al., arXiv 2006.09882, equation 5.
    """
    require_temperature(temperature)
    codes = torch.stack(_codes(similarities.float(), epsilon, num_iterations)).mean(dim=0)
    return -(codes * (small.float() / temperature).log_softmax(dim=2)).sum(dim=2).mean()


def _codes(similarities: Tensor, epsilon: float, num_iterations: int) -> list[Tensor]:
    """Of each view."""
    return [balanced_codes(view, epsilon=epsilon, num_iterations=num_iterations) for view in similarities]
