"""The order in which a worker sees its shard in an epoch.

Uniform, within a few row groups at a time, in groups of a cluster, or as pairs of a cluster.
"""

import numpy as np
from jaxtyping import Int


def uniform_order(indices: Int[np.ndarray, " n"], generator: np.random.Generator) -> Int[np.ndarray, " n"]:
    """A random permutation."""
    return indices[generator.permutation(len(indices))]


def buffered_order(
    blocks: list[Int[np.ndarray, " m"]], num_buffered: int, generator: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """Every index once: the blocks in random order, shuffled within each `num_buffered` of them that come together."""
    ranks = generator.permutation(len(blocks))
    buffers = [ranks[start : start + num_buffered] for start in range(0, len(ranks), num_buffered)]
    return np.concatenate(
        [generator.permutation(np.concatenate([blocks[i] for i in members])) for members in buffers]
    )  # fmt: skip


def cluster_order(
    indices: Int[np.ndarray, " n"],
    cluster_ids: Int[np.ndarray, " n"],
    members_per_cluster: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, " n"]:
    """Every index once, members of a cluster in runs of `members_per_cluster`, the runs in random order.

    A batch of C x M consecutive indices then holds about C clusters with M members each; the last run of a cluster is
    shorter where its size is no multiple.

    Args:
        cluster_ids: cluster of each of `indices`.
    """
    shuffled = generator.permutation(len(indices))
    by_cluster = shuffled[np.argsort(cluster_ids[shuffled], kind="stable")]
    ordered_ids = cluster_ids[by_cluster]
    starts = np.flatnonzero(np.r_[True, ordered_ids[1:] != ordered_ids[:-1]])
    place_in_cluster = np.arange(len(indices)) - np.repeat(starts, np.diff(np.r_[starts, len(indices)]))
    run = np.cumsum(place_in_cluster % members_per_cluster == 0) - 1
    rank_of_run = generator.permutation(run[-1] + 1)
    return indices[by_cluster[np.argsort(rank_of_run[run], kind="stable")]]


def draw_partners(
    indices: Int[np.ndarray, " n"], cluster_ids: Int[np.ndarray, " total"], generator: np.random.Generator
) -> Int[np.ndarray, " n"]:
    """For each sample another draw from its cluster, by chance itself.

    With a uniform draw of the sample, the pair is drawn as in the paper: Z from P(Z), then both from P(X|Z).

    Args:
        cluster_ids: cluster of every sample of the data set.
    """
    members = np.argsort(cluster_ids, kind="stable")
    sizes = np.bincount(cluster_ids)
    starts = np.cumsum(sizes) - sizes
    own = cluster_ids[indices]
    drawn: np.ndarray = members[starts[own] + (generator.random(len(indices)) * sizes[own]).astype(np.int64)]
    return drawn
