"""A balanced sample of a clustering: as many rows from each cluster as it has, whatever its size.

Large collections hold some concepts a thousand times as often as others. Sampling from the top of a tree of clusters
down evens that out at each level (Vo et al., *Automatic Data Curation for Self-Supervised Learning*, arXiv 2405.15613,
section 3.3).
"""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from clray.clusters.saved import SavedClustering
from clray.errors import UserError


def curate(
    clustering: SavedClustering, num_samples: int, *, num_clusters: int | None = None, seed: int = 0
) -> Int[np.ndarray, " n"]:
    """Rows of a balanced sample, ascending; of nested granularities each level is balanced, the coarsest first.

    Args:
        num_clusters: sample from this granularity alone; by default all of nested ones, or the only one.

    Raises:
        UserError: more samples than vectors, several granularities that are not nested, or a damaged file.
    """
    levels = _levels(clustering, num_clusters)
    ids = clustering.ids(levels[0])
    sizes, parents = [np.bincount(ids[ids >= 0], minlength=levels[0])], []
    for level, above in itertools.pairwise(levels):
        parents.append(clustering.parents(level))
        sizes.append(np.bincount(parents[-1], weights=sizes[-1], minlength=above).astype(np.int64))
    num_vectors = int(sizes[0].sum())
    if not 1 <= num_samples <= num_vectors:
        raise UserError(f"num_samples must be between 1 and {num_vectors} (the clustered vectors); got {num_samples}")
    generator = np.random.default_rng(seed)
    budgets = share_evenly(sizes[-1], num_samples, generator)
    for above, below in zip(reversed(parents), reversed(sizes[:-1]), strict=True):
        budgets = _share_below(above, below, budgets, generator)
    return _draw(ids, budgets, generator)


def share_evenly(sizes: Int[np.ndarray, " k"], total: int, generator: np.random.Generator) -> Int[np.ndarray, " k"]:
    """How many of a total each cluster gives: all the same, but none more than it has.

    It is the division nearest to an even one, in squared distance, that the sizes allow. What is left over after equal
    shares goes to clusters drawn at random, one each.

    Args:
        total: at most the sum of the sizes.
    """
    ascending = np.sort(sizes)
    # Where clusters give all they have up to a size, what is left is shared by those above it.
    given = np.concatenate([[0], np.cumsum(ascending)[:-1]])
    level = (total - given) // np.arange(len(sizes), 0, -1)
    full = int(np.argmax(ascending > level)) if (ascending > level).any() else len(sizes)
    if full == len(sizes):
        return sizes.copy()
    shares: np.ndarray = np.minimum(sizes, level[full])
    may_give = np.flatnonzero(sizes > level[full])
    shares[generator.choice(may_give, total - int(shares.sum()), replace=False)] += 1
    return shares


def _share_below(
    parents: Int[np.ndarray, " k"], sizes: Int[np.ndarray, " k"], budgets: Int[np.ndarray, " above"],
    generator: np.random.Generator,
) -> Int[np.ndarray, " k"]:  # fmt: skip
    """The budget of each cluster divided among the clusters below it."""
    shares = np.zeros(len(sizes), np.int64)
    order = np.argsort(parents, kind="stable")
    bounds = np.searchsorted(parents[order], np.arange(len(budgets) + 1))
    for number, budget in enumerate(budgets.tolist()):
        children = order[bounds[number] : bounds[number + 1]]
        if budget:
            shares[children] = share_evenly(sizes[children], budget, generator)
    return shares


def _draw(
    ids: Int[np.ndarray, " n"], budgets: Int[np.ndarray, " k"], generator: np.random.Generator
) -> Int[np.ndarray, " m"]:
    """So many rows of each cluster at random, ascending."""
    shuffled = generator.permutation(np.flatnonzero(ids >= 0))
    order = shuffled[np.argsort(ids[shuffled], kind="stable")]
    starts = np.searchsorted(ids[order], np.arange(len(budgets)))
    rank = np.arange(len(order)) - starts[ids[order]]
    return np.sort(order[rank < budgets[ids[order]]])


def _levels(clustering: SavedClustering, num_clusters: int | None) -> Sequence[int]:
    """K of the levels that are balanced, from the finest."""
    if num_clusters is not None:
        return [num_clusters]
    if len(clustering.num_clusters) > 1 and not clustering.is_nested:
        known = ", ".join(map(str, clustering.num_clusters))
        raise UserError(f"num_clusters: {clustering.folder} holds K = {known}, which are not nested; name one of them")
    return clustering.num_clusters
