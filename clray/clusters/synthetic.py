"""Clusters at a wanted point of the information plane, made from the labels.

Merging classes lowers I(Z;T) at H(Z|T) = 0; splitting clusters at random raises H(Z|T) at an unchanged I(Z;T);
permuting the ids of a share of the samples lowers I(Z;T) and raises H(Z|T) at an unchanged H(Z).

Source: Tsai et al., arXiv 2106.02869, section 4.2 (synthetic clusters).
"""

import numpy as np
from jaxtyping import Int

from clray.clusters.assignment import ClusterAssignment
from clray.errors import UserError


def synthetic_clusters(
    labels: Int[np.ndarray, " n"],
    *,
    num_merged: int | None,
    num_splits: int,
    permuted_fraction: float,
    seed: int,
) -> ClusterAssignment:
    """Merge, then split, then permute.

    Args:
        labels: T, in 0..num_classes-1.
        num_merged: clusters that the classes are merged into, as evenly as their numbers allow; None merges none.
        num_splits: parts that each cluster is split into at random; 1 splits none.
        permuted_fraction: share of the samples, drawn at random, among which the ids are shuffled.
        seed: of the random choices.

    Raises:
        UserError: more merged clusters than classes.
    """
    distinct, ids = np.unique(labels, return_inverse=True)
    generator = np.random.default_rng(seed)
    if num_merged is not None:
        if num_merged > len(distinct):
            raise UserError(f"clusters.num_merged must be at most {len(distinct)} (the classes); got {num_merged}")
        ids = (generator.permutation(len(distinct)) % num_merged)[ids]
    if num_splits > 1:
        ids = ids * num_splits + generator.integers(num_splits, size=len(ids))
    chosen = generator.permutation(len(ids))[: round(permuted_fraction * len(ids))]
    ids = ids.copy()
    ids[chosen] = ids[generator.permutation(chosen)]
    used, ids = np.unique(ids, return_inverse=True)
    return ClusterAssignment(ids, len(used), "synthetic")
