"""The step of Lloyd's algorithm that moves the centroids."""

import numpy as np
from jaxtyping import Float

from clray.kmeans.empty import fill_empty
from clray.kmeans.shards.port import PartialSums


def update_centroids(
    centroids: Float[np.ndarray, "k dim"], sums: PartialSums, generator: np.random.Generator, *, spherical: bool
) -> Float[np.ndarray, "k dim"]:
    """The mean of each cluster; an empty cluster takes half of a large one, where there are vectors enough."""
    means: np.ndarray = sums.sums / np.where(sums.counts > 0, sums.counts, 1.0)[:, None]
    is_empty = sums.counts == 0
    if sums.counts.sum() > len(means):
        fill_empty(means, sums.counts, is_empty, generator)
    else:
        means[is_empty] = centroids[is_empty]
    return (unit(means) if spherical else means).astype(np.float32)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors at unit length; zero stays zero."""
    scaled: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return scaled
