"""What clusters of the same sizes, dealt out at random, would tell about the labels: to be taken off.

Source: Vinh, Epps and Bailey, "Information Theoretic Measures for Clusterings Comparison", JMLR 11 (2010), eq. 24a;
Hubert and Arabie (1985) for the Rand index.
"""

import numpy as np
from jaxtyping import Int
from scipy.special import gammaln

NUM_PERMUTATIONS = 16
LARGEST_PIECE = 1 << 21
"""Terms summed at once, which bounds the memory at some 100 MiB."""


def expected_information_bits(sizes: Int[np.ndarray, " k"], label_counts: Int[np.ndarray, " c"]) -> float:
    """E[I(Z;T)] in bits over all permutations of the ids, given the sizes of clusters and labels.

    For a cluster of a samples and a label of b, the number n of shared samples is hypergeometric, and

        E[I] = sum_{a,b} sum_n P(n; N, a, b) n/N log2(N n / (a b)).

    Equal sizes are summed once. Of n, what lies beyond 12 deviations and 40 of its mean is left out: by the bound of
    Bernstein it has a probability below 1e-25.

    Args:
        sizes, label_counts: at least 1 each, of the same sum N.
    """
    total = int(sizes.sum())
    few, many = sorted((np.unique(sizes, return_counts=True), np.unique(label_counts, return_counts=True)),
                       key=lambda pair: len(pair[0]))  # fmt: skip
    expected = 0.0
    for a, repeats in zip(*few, strict=True):
        b, times = many
        low, high = _range(float(a), b.astype(np.float64), total)
        ends = np.cumsum(high - low + 1)
        start = 0
        while start < len(b):
            done = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, done + LARGEST_PIECE, side="right")))
            part = slice(start, stop)
            expected += repeats * _partial_sum(int(a), b[part], times[part], low[part], high[part], total)
            start = stop
    return expected


def information_deviation_bits(
    cluster_ids: Int[np.ndarray, " n"], labels: Int[np.ndarray, " n"], *, seed: int = 0
) -> float:
    """Standard deviation of I(Z;T) in bits over permutations of the ids, from `NUM_PERMUTATIONS` of them.

    The chi-squared approximation, sqrt(2 (K-1)(C-1)) / (2 N ln 2), is several times too large where clusters are small.

    Args:
        labels: at least 0.
    """
    generator, width = np.random.default_rng(seed), int(labels.max()) + 1
    z = np.unique(cluster_ids, return_inverse=True)[1].astype(np.int64)
    drawn = [
        np.unique(generator.permutation(z) * width + labels, return_counts=True)[1] for _ in range(NUM_PERMUTATIONS)
    ]
    # H(Z) and H(T) are the same for all.
    joint = [float(np.sum(counts * np.log2(counts)) / len(z)) for counts in drawn]
    return float(np.std(joint, ddof=1))


def _range(a: float, b: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """The least and the greatest n that count, int64, for one a and each b."""
    mean = a * b / total
    deviation = np.sqrt(mean * (total - a) / total * (total - b) / max(total - 1, 1))
    reach = 12 * deviation + 40
    low = np.maximum(np.maximum(1, a + b - total), np.floor(mean - reach))
    high = np.minimum(np.minimum(a, b), np.ceil(mean + reach))
    return low.astype(np.int64), high.astype(np.int64)


def _partial_sum(
    a: int, b: np.ndarray, times: np.ndarray, low: np.ndarray, high: np.ndarray, total: int
) -> float:  # fmt: skip
    """sum over b and n of times P(n) n/N log2(N n / (a b))."""
    counts = high - low + 1
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    n = np.repeat(low, counts) + offsets
    # log P(n) = log [ a! b! (N-a)! (N-b)! / (N! n! (a-n)! (b-n)! (N-a-b+n)!) ]
    of_b = gammaln(b + 1) + gammaln(total - b + 1)
    of_a = float(gammaln(a + 1) + gammaln(total - a + 1) - gammaln(total + 1))
    each_b = np.repeat(b, counts)
    log_p = np.repeat(of_b, counts) + of_a
    log_p -= gammaln(n + 1) + gammaln(a - n + 1) + gammaln(each_b - n + 1) + gammaln(total - a - each_b + n + 1)
    information = n / total * np.log2(total * (n / (a * each_b.astype(np.float64))))
    return float(np.repeat(times, counts) @ (np.exp(log_p) * information))


def adjusted_rand_index(
    counts: Int[np.ndarray, " cells"], sizes: Int[np.ndarray, " k"], label_counts: Int[np.ndarray, " c"]
) -> float:
    """Share of pairs on which clusters and labels agree, above chance: 1 where they are the same, 0 at random.

    Args:
        counts: of the cells of the contingency table that are not empty.
    """
    together, same_cluster, same_label = (count_pairs(each) for each in (counts, sizes, label_counts))
    pairs = count_pairs(sizes.sum(keepdims=True))
    if together == same_cluster == same_label:
        return 1.0
    expected = same_cluster * same_label / pairs
    return (together - expected) / ((same_cluster + same_label) / 2 - expected)


def count_pairs(counts: np.ndarray) -> float:
    """Pairs of samples within groups of these sizes."""
    values = counts.astype(np.float64)
    return float((values * (values - 1) / 2).sum())
