"""ProtoNCE of Prototypical Contrastive Learning: embeddings against the centroids of several granularities.

Source: Li et al., arXiv 2005.04966, equations 11 and 12, and the authors' code (salesforce/PCL, pcl/builder.py and
run_kmeans in main_pcl.py).
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clray.objective.contrastive import require_temperature

SMOOTHING = 10
"""alpha of equation 12: keeps the concentration of small clusters from growing."""


def concentrations(
    distances: Float[np.ndarray, " n"], ids: Int[np.ndarray, " n"], num_clusters: int, *, temperature: float
) -> Float[np.ndarray, " k"]:
    """The temperature of each prototype, float32 [K], with mean `temperature`.

    phi = mean distance to the centroid / log(size + 10); a cluster with fewer than two members takes the largest phi;
    all are clamped to their 10th and 90th percentile. Where all distances are 0 every prototype has the mean.

    Args:
        distances: L2 distance (not squared) of each vector to its centroid.
        ids: cluster of each vector.
    """
    require_temperature(temperature)
    sizes = np.bincount(ids, minlength=num_clusters)
    phi = np.bincount(ids, distances, minlength=num_clusters) / np.maximum(sizes, 1) / np.log(sizes + SMOOTHING)
    phi[sizes < 2] = phi[sizes >= 2].max(initial=0.0)
    phi = np.clip(phi, *np.percentile(phi, [10, 90]))
    if phi.mean() == 0:
        return np.full(num_clusters, temperature, np.float32)
    scaled: np.ndarray = phi * (temperature / phi.mean())
    return scaled.astype(np.float32)


def proto_nce(
    z: Float[Tensor, "batch dim"],
    ids: Int[Tensor, "granularities batch"],
    prototypes: list[Float[Tensor, "_ dim"]],
    phis: list[Float[Tensor, " _"]],
) -> Float[Tensor, ""]:
    """Mean over granularities and batch of  -log( exp(z.c_s/phi_s) / sum_j exp(z.c_j/phi_j) ), s the sample's cluster.

    Args:
        z: unit-length embeddings of the local batch.
        ids: cluster of each sample in each granularity.
        prototypes, phis: unit-length centroids and concentrations of each granularity. All prototypes of a granularity
            are its negatives; the authors draw 16,000 of them where there are more.
    """
    losses = []
    with torch.autocast(z.device.type, enabled=False):
        for own, centroids, phi in zip(ids, prototypes, phis, strict=True):
            losses.append(F.cross_entropy(z.float() @ centroids.T / phi, own.long()))
    return torch.stack(losses).mean()
