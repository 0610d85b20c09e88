"""Representations with their labels, and which of the labels a budget leaves."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped


@dataclass(frozen=True)
class Labelled:
    """Representations whose labels are known.

    Attributes:
        h: float32 [N, dim].
        labels: one class a sample, integers [N], or several labels a sample, 0 or 1 each, [N, labels]; -1 there is
            unknown.
    """

    h: Float[np.ndarray, "n dim"]
    labels: Shaped[np.ndarray, "n ..."]

    def __len__(self) -> int:
        return len(self.h)

    @property
    def has_flags(self) -> bool:
        """Whether there are several labels a sample."""
        return self.labels.ndim == 2

    @property
    def has_classes(self) -> bool:
        """Whether there is something to tell apart."""
        return self.has_flags or bool((self.labels != self.labels[:1]).any())


def choose_labelled(labels: Shaped[np.ndarray, "n ..."], per_class: int | None, seed: int) -> Int[np.ndarray, " m"]:
    """Rows of up to `per_class` random samples of each class, in row order; all rows for None.

    Of several labels a sample: up to `per_class` that have each label.
    """
    if per_class is None:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    has_label = (labels[order] == value for value in np.unique(labels))
    if labels.ndim == 2:
        has_label = iter((labels[order] == 1).T)
    return np.unique(np.concatenate([order[each][:per_class] for each in has_label]))
