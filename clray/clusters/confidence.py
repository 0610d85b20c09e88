"""Which members of a cluster count as such; one that does not stands for itself.

Knows vectors, centroids and ids; where the vectors come from is decided elsewhere.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

BLOCK_ELEMENTS = 2**22
"""Distances in memory at a time."""


def margins(
    vectors: Float[np.ndarray, "n dim"],
    centroids: Float[np.ndarray, "k dim"],
    ids: Int[np.ndarray, " n"],
    device: torch.device,
) -> Float[np.ndarray, " n"]:
    """(b - a)/max(a, b) of each vector, a its distance to its own centroid and b to the nearest other; -1..1, float32.

    It is below 0 where another centroid is nearer. Source: the simplified silhouette (Hruschka et al. 2004).

    Args:
        centroids: two or more.
        ids: the cluster of each vector.
        device: where the distances are computed, block by block.
    """
    centres = torch.from_numpy(np.ascontiguousarray(centroids, np.float32)).to(device)
    num_rows = max(1, BLOCK_ELEMENTS // len(centres))
    parts = [torch.empty(0)]
    for start in range(0, len(vectors), num_rows):
        rows = slice(start, start + num_rows)
        distances = torch.cdist(torch.from_numpy(vectors[rows]).to(device).float(), centres)
        place = torch.from_numpy(ids[rows]).to(device).long()[:, None]
        own = distances.gather(1, place)[:, 0]
        other = distances.scatter(1, place, torch.inf).amin(dim=1)
        parts.append(((other - own) / torch.maximum(own, other).clamp(min=1e-12)).cpu())
    return torch.cat(parts).numpy()


def most_confident(ids: Int[np.ndarray, " n"], scores: Float[np.ndarray, " n"], share: float) -> Bool[np.ndarray, " n"]:
    """The members of highest score of each cluster: round(share * size) of them, halves up; among equals the first.

    Args:
        share: 0..1.
    """
    order = np.lexsort((-scores, ids))
    ordered = ids[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    sizes = np.diff(np.r_[starts, len(ids)])
    place = np.arange(len(ids)) - np.repeat(starts, sizes)
    counts = np.zeros(len(ids), bool)
    counts[order] = place < np.repeat(np.floor(share * sizes + 0.5), sizes)
    return counts


def with_loners(
    ids: Int[np.ndarray, " n"], num_clusters: int, counts: Bool[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:  # fmt: skip
    """The ids, with a cluster of its own, K + i, for each sample i that does not count; int32."""
    return np.where(counts, ids, num_clusters + np.arange(len(ids))).astype(np.int32)
