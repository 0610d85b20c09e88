"""How good representations are without any label: their rank, spread, agreement of views, and how firm clusters are.

Knows arrays alone. Every measure is taken of a sample, so that it costs less than a linear probe.
"""

import warnings

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score
from torch import Tensor
from torch.nn import functional as F

from clray.clusters.statistics import cluster_statistics

MAX_SAMPLES = 2000
"""Of the training images, by which representations are judged."""
MAX_PAIRED = 512
"""Of them, those that are embedded in two random views."""
NUM_CLUSTERS = 20
"""Of the k-means by which every run is judged, whatever its own clusters are; at most a tenth of the samples."""
CONFIDENT = 0.1
"""A member is confident whose own centroid is nearer than the next by this share of the latter's distance."""
UNIFORMITY_SCALE = 2.0


def label_free_measures(
    h: Float[np.ndarray, "n dim"],
    z: Float[np.ndarray, "n z_dim"],
    views: tuple[Float[np.ndarray, "m z_dim"], Float[np.ndarray, "m z_dim"]],
    *,
    seed: int,
) -> dict[str, float]:
    """All measures by name.

    Of the embeddings z, as their sources have them, `rankme`, `alignment` and `uniformity`. Of k-means clusters of the
    unit representations h `silhouette`, `stability` (ARI of two random starts) and `confident_fraction`; these are left
    out for fewer than 20 samples.

    Args:
        h, z: of the same samples, up to `MAX_SAMPLES` training images.
        views: z of two random views of the same images.
        seed: of the starts of k-means.
    """
    found = {
        "rankme": rankme(torch.from_numpy(z)),
        "alignment": alignment(*(F.normalize(torch.from_numpy(view)) for view in views)),
        "uniformity": uniformity(F.normalize(torch.from_numpy(z))),
    }
    unit = F.normalize(torch.from_numpy(h))
    num_clusters = min(NUM_CLUSTERS, len(h) // 10)
    if num_clusters < 2:
        return found
    starts = [
        KMeans(num_clusters, init="random", n_init=1, random_state=seed + start, max_iter=50) for start in range(2)
    ]
    with warnings.catch_warnings():
        # Representations that have collapsed have fewer distinct points than clusters.
        warnings.simplefilter("ignore", ConvergenceWarning)
        first, second = (each.fit_predict(unit.numpy()) for each in starts)
    return found | {
        "silhouette": silhouette(unit.numpy(), first),
        "stability": cluster_statistics(first, second).ari,
        "confident_fraction": confident_fraction(unit.numpy(), starts[0].cluster_centers_),
    }


def rankme(z: Float[Tensor, "n dim"]) -> float:
    """Effective rank of the centred embeddings, exp(-sum p log p) of the singular values' shares p.

    From 1 to min(n, dim), higher is better. Source: Garrido et al., arXiv 2210.02885, there of 25,600 samples. They do
    not centre; in short runs the mean is most of an embedding and hides its rank (docs/label_free.md).
    """
    values = torch.linalg.svdvals((z - z.mean(0)).double())
    shares = values / values.sum().clamp(min=1e-12) + 1e-7
    return float((-(shares * shares.log()).sum()).exp())


def alignment(a: Float[Tensor, "m dim"], b: Float[Tensor, "m dim"]) -> float:
    """Mean squared distance of two views of an image, 0..4; lower is better. Source: Wang and Isola, arXiv 2005.10242.

    Args:
        a, b: unit vectors.
    """
    return float((a - b).square().sum(1).mean())


def uniformity(unit: Float[Tensor, "n dim"]) -> float:
    """log mean exp(-2 |x - y|^2) over pairs of samples, -8..0; lower is better. Source: as `alignment`."""
    squares = torch.pdist(unit).square() if len(unit) > 1 else unit.new_zeros(1)
    return float((-UNIFORMITY_SCALE * squares).exp().mean().log())


def silhouette(h: Float[np.ndarray, "n dim"], ids: Int[np.ndarray, " n"]) -> float:
    """Mean of (b - a)/max(a, b), a the mean distance within the own cluster and b to the nearest other; -1..1.

    0 where there is one cluster alone, or as many as samples. Source: Rousseeuw, J. Comput. Appl. Math. 20 (1987).
    """
    num_clusters = len(np.unique(ids))
    return float(silhouette_score(h, ids)) if 2 <= num_clusters < len(h) else 0.0


def confident_fraction(h: Float[np.ndarray, "n dim"], centroids: Float[np.ndarray, "k dim"]) -> float:
    """Share of the samples that lie clearly nearer to one centroid than to all others, by `CONFIDENT`.

    The simplified silhouette 1 - a/b of the distances to the two nearest centroids (Hruschka et al. 2004), and which
    share of the samples it finds above a threshold.
    """
    distances = torch.cdist(torch.from_numpy(h), torch.from_numpy(centroids).to(torch.from_numpy(h)))
    own, other = distances.topk(2, dim=1, largest=False).values.unbind(1)
    return float((1 - own / other.clamp(min=1e-12) > CONFIDENT).double().mean())
