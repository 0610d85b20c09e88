"""Of predictions and labels to figures: accuracy, balanced, among the first five, and average precision."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

FIRST = 5
CLASSES_FOR_FIRST = 10
"""With more classes than these the share of samples whose class is among the first five is told too."""


def class_measures(scores: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> dict[str, float]:
    """`accuracy`, `balanced_accuracy` (the mean over the classes that occur), and `top5_accuracy` of many classes."""
    right = (scores.argmax(1) == labels).double()
    counts = torch.bincount(labels, minlength=scores.shape[1])
    hits = torch.bincount(labels, weights=right, minlength=scores.shape[1])
    occurs = counts > 0
    found = {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float((hits[occurs] / counts[occurs]).mean()),
    }
    if scores.shape[1] > CLASSES_FOR_FIRST:
        first = scores.topk(FIRST, dim=1).indices
        found["top5_accuracy"] = float((first == labels[:, None]).any(1).double().mean())
    return found


def flag_measures(scores: Float[Tensor, "n flags"], labels: Int[Tensor, "n flags"]) -> dict[str, float]:
    """`mean_average_precision` over the labels that at least one sample has; those unknown, -1, are left out.

    Average precision as scikit-learn has it, sum_k (R_k - R_{k-1}) P_k over the distinct scores, 0..1.
    """
    found = []
    for score, label in zip(scores.unbind(1), labels.unbind(1), strict=True):
        known = label >= 0
        if (label[known] == 1).any():
            found.append(_average_precision(score[known], label[known]))
    return {"mean_average_precision": sum(found) / len(found)} if found else {}


def _average_precision(scores: Float[Tensor, " n"], labels: Int[Tensor, " n"]) -> float:
    order = scores.argsort(descending=True, stable=True)
    scores, hits = scores[order], labels[order].double().cumsum(0)
    # Samples of equal score are retrieved together.
    ends = torch.cat([scores[1:] != scores[:-1], torch.ones(1, dtype=torch.bool, device=scores.device)])
    places = torch.arange(1, len(scores) + 1, device=scores.device)[ends]
    hits = hits[ends]
    gained = torch.diff(hits, prepend=hits.new_zeros(1))
    return float((gained * hits / places).sum() / hits[-1])
