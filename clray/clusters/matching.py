"""How well clusters are the labels under other names: one cluster to a label, matched as well as can be."""

import numpy as np
from scipy.sparse import csr_array

LARGEST_TABLE = 1 << 22
"""Cells of the table that is matched, which takes at most a second or two."""


def matched_fraction(table: csr_array) -> float | None:
    """Share of samples in the cell that their label is matched with ("Hungarian accuracy"); None for a huge table.

    Of C labels each needs only its C largest clusters: the others can take at most C - 1 of these.

    Args:
        table: samples by cluster and label, integer [K, C], without empty labels.
    """
    # Takes a while, and is needed only once a run counts.
    from scipy.optimize import linear_sum_assignment

    by_label, num_labels = table.tocsc(), table.shape[1]
    useful = []
    for label in range(num_labels):
        part = slice(by_label.indptr[label], by_label.indptr[label + 1])
        counts, clusters = by_label.data[part], by_label.indices[part]
        if len(counts) > num_labels:
            clusters = clusters[np.argpartition(counts, -num_labels)[-num_labels:]]
        useful.append(clusters)
    chosen = np.unique(np.concatenate(useful))
    if len(chosen) * num_labels > LARGEST_TABLE:
        return None
    dense = table[chosen].toarray()
    rows, columns = linear_sum_assignment(dense, maximize=True)
    return float(dense[rows, columns].sum() / table.sum())
