"""How much clusters Z tell about labels T, in bits, from their contingency table.

Source: Tsai et al., arXiv 2106.02869, section 4.1: good clusters have high I(Z;T) and low H(Z|T).
"""

from dataclasses import asdict, dataclass, fields

import numpy as np
from jaxtyping import Int
from scipy.sparse import coo_array

from clray.clusters.chance import adjusted_rand_index, count_pairs, expected_information_bits
from clray.clusters.matching import matched_fraction


@dataclass(frozen=True)
class Balance:
    """What is known of an assignment without labels."""

    num_clusters: int
    """K, counting empty clusters."""
    num_nonempty: int
    entropy_bits: float
    """H(Z)"""
    imbalance_factor: float
    """K sum(size^2) / N^2 (as FAISS): 1 for equal clusters, K when one holds everything."""

    def as_metrics(self) -> dict[str, float]:
        """The values by their metric names, `clusters/...`."""
        return {f"clusters/{name}": float(value) for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class ClusterStatistics(Balance):
    """Information and balance of an assignment; all entropies in bits."""

    label_entropy_bits: float
    """H(T)"""
    mutual_information_bits: float
    """I(Z;T)"""
    conditional_entropy_bits: float
    """H(Z|T) = H(Z) - I(Z;T)"""
    label_conditional_entropy_bits: float
    """H(T|Z) = H(T) - I(Z;T)"""
    adjusted_mutual_information_bits: float
    """I(Z;T) above chance: less what random clusters of the same sizes would tell. 0 for instance clusters."""
    nmi: float
    """I(Z;T) over the mean of H(Z) and H(T); 1 where both are 0."""
    ami: float
    """As nmi, with the chance taken off above and below: 1 for the labels, 0 at random."""
    ari: float
    """Adjusted Rand index: agreement over pairs of samples, 1 for the labels, 0 at random."""
    pair_precision: float | None
    """Share of the pairs of samples of one cluster that are of one label; None where no cluster has two."""
    chance_pair_precision: float | None
    """The same of all pairs, which is what random clusters reach; None beside it."""
    purity: float
    """Share of samples whose label is the most frequent one of their cluster."""
    hungarian_accuracy: float | None
    """Share of samples whose label is matched with their cluster, one to one, as well as can be; None where there are
    too many of both."""


def entropy_bits(ids: Int[np.ndarray, " n"]) -> float:
    """H = -sum p log2 p of the frequencies of the values."""
    return _entropy(np.unique(ids, return_counts=True)[1])


def _entropy(counts: np.ndarray) -> float:
    # Sorted, so that the same counts in another order give the same value to the last bit.
    frequencies = np.sort(counts) / counts.sum()
    return float(max(0.0, -(frequencies * np.log2(frequencies)).sum()))


def cluster_metrics(
    cluster_ids: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], num_clusters: int | None = None
) -> dict[str, float]:
    """What can be known of clusters, by metric names; what the labels do not tell is left out.

    Size and balance are those of all samples. Information is counted over the samples that have a label, with the H(Z)
    of these; where they are not all, `clusters/num_labelled` says how many they are.

    Args:
        cluster_ids: Z, one per sample.
        labels: T, one per sample, negative where there is none.
        num_clusters: as for `cluster_statistics`.
    """
    labelled = labels >= 0
    balance = cluster_balance(cluster_ids, num_clusters).as_metrics()
    if not labelled.any():
        return balance
    found = cluster_statistics(cluster_ids[labelled], labels[labelled], num_clusters).as_metrics()
    partly = {} if labelled.all() else {"clusters/num_labelled": float(labelled.sum())}
    return {**found, **partly, **balance}


def label_metrics(
    cluster_ids: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], num_clusters: int | None = None
) -> dict[str, float]:
    """Of the `cluster_metrics` those that the labels tell."""
    balance = {f"clusters/{field.name}" for field in fields(Balance)}
    found = cluster_metrics(cluster_ids, labels, num_clusters)
    return {name: value for name, value in found.items() if name not in balance}


def cluster_balance(cluster_ids: Int[np.ndarray, " n"], num_clusters: int | None = None) -> Balance:
    """Of clusters Z alone; arguments and errors as for `cluster_statistics`."""
    if len(cluster_ids) == 0:
        raise ValueError("need at least one cluster id")
    return _balance(_count(cluster_ids)[1], num_clusters)


def _balance(sizes: np.ndarray, num_clusters: int | None) -> Balance:
    n, k = sizes.sum(), num_clusters or len(sizes)
    return Balance(k, len(sizes), _entropy(sizes), float(k * np.square(sizes.astype(np.float64)).sum() / n**2))


def cluster_statistics(
    cluster_ids: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], num_clusters: int | None = None
) -> ClusterStatistics:
    """Statistics of clusters Z against labels T.

    Args:
        cluster_ids: Z, one per sample.
        labels: T, one per sample.
        num_clusters: K where some clusters are empty; by default the clusters seen.

    Raises:
        ValueError: no samples, or lengths that differ.
    """
    if len(cluster_ids) != len(labels) or len(labels) == 0:
        raise ValueError(f"need one cluster id per label, at least one; got {len(cluster_ids)} and {len(labels)}")
    (z, sizes), (t, label_counts) = _count(cluster_ids), _count(labels)
    # Only the cells that occur: the dense table of N instance clusters would hold N x C zeros.
    table = coo_array((np.ones(len(z), np.int64), (z, t)), shape=(len(sizes), len(label_counts))).tocsr()
    counts = table.data
    h_z, h_t, h_zt = _entropy(sizes), _entropy(label_counts), _entropy(counts)
    mutual = min(max(0.0, h_z + h_t - h_zt), h_z, h_t)
    largest = np.maximum.reduceat(counts, table.indptr[:-1])
    n = len(labels)
    chance = expected_information_bits(sizes, label_counts)
    return ClusterStatistics(
        **asdict(_balance(sizes, num_clusters)),
        label_entropy_bits=h_t,
        mutual_information_bits=mutual,
        conditional_entropy_bits=h_z - mutual,
        label_conditional_entropy_bits=h_t - mutual,
        adjusted_mutual_information_bits=mutual - chance,
        nmi=mutual / ((h_z + h_t) / 2) if h_z + h_t > 0 else 1.0,
        ami=_adjusted(mutual, h_z, h_t, chance),
        ari=adjusted_rand_index(counts, sizes, label_counts),
        pair_precision=_share(count_pairs(counts), count_pairs(sizes)),
        chance_pair_precision=count_pairs(label_counts) / count_pairs(np.array([n])) if sizes.max() > 1 else None,
        purity=float(largest.sum() / n),
        hungarian_accuracy=matched_fraction(table),
    )


def pair_precision(cluster_ids: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"]) -> float | None:
    """Share of the pairs of samples of one cluster that are of one label; None where there is no such pair.

    Args:
        labels: negative where there is none; such samples are left out.
    """
    labelled = labels >= 0
    if not labelled.any():
        return None
    (z, sizes), (t, label_counts) = _count(cluster_ids[labelled]), _count(labels[labelled])
    table = coo_array((np.ones(len(z), np.int64), (z, t)), shape=(len(sizes), len(label_counts))).tocsr()
    return _share(count_pairs(table.data), count_pairs(sizes))


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def agreement(first: Int[np.ndarray, " n"], second: Int[np.ndarray, " n"]) -> float:
    """Adjusted Rand index of two assignments of the same samples: 1 where they differ in names alone, 0 at random."""
    (a, sizes), (b, other_sizes) = _count(first), _count(second)
    table = coo_array((np.ones(len(a), np.int64), (a, b)), shape=(len(sizes), len(other_sizes))).tocsr()
    return adjusted_rand_index(table.data, sizes, other_sizes)


def _count(ids: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " k"]]:
    """The place of each value among those that occur, and how often each of these does, both in ascending order."""
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high > 4 * len(ids) + 1024:
        _, places, counts = np.unique(ids, return_inverse=True, return_counts=True)
        return places, counts
    # Without a sort, which is nine tenths of the work.
    counts = np.bincount(ids)
    occurs = counts > 0
    return (ids if occurs.all() else (np.cumsum(occurs) - 1)[ids]), counts[occurs]


def _adjusted(mutual: float, h_z: float, h_t: float, chance: float) -> float:
    """AMI by the mean of the entropies: 0 where one of them is 0, 1 where both are or where chance leaves no room."""
    if h_z == 0 or h_t == 0:
        return float(h_z == h_t)
    room = (h_z + h_t) / 2 - chance
    return (mutual - chance) / room if room > 1e-12 else 1.0
