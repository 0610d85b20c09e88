"""CCL-K: positives weighted by how alike two images are in what is known of them, numbers in place of clusters.

Source: Tsai et al., Conditional Contrastive Learning with Kernel (arXiv 2202.05458), section 3 and the weakly
supervised objective, and the authors' code (Crazy-Jack/CCLK-release, ConditionalSampling.py).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clray.objective.contrastive import ObjectiveValue, require_temperature, scaled
from clray.objective.gather import all_gather, all_gather_with_ids, rank
from clray.objective.normalizer import log_normalizers

Form = Literal["log-of-mean", "mean-of-logs"]
LEAST_OWN = 1e-6
"""The least weight of the own image, over the highest of its row."""


@dataclass(frozen=True)
class Kernel:
    """How the values of two images are compared.

    Attributes:
        name: `cosine`, `rbf` exp(-|u-v|^2 / (2 b^2)), `laplacian` exp(-|u-v| / b), `linear` u.v, `polynomial` (u.v)^3.
        bandwidth: b > 0, in units of the values.
        ridge: lambda > 0.
    """

    name: str = "cosine"
    bandwidth: float = 1.0
    ridge: float = 0.01


def kernel_matrix(values: Float[Tensor, "m dim"], kernel: Kernel) -> Float[Tensor, "m m"]:
    """Of all pairs, float64, over the mean of its diagonal.

    The mean makes `linear` and `polynomial` independent of the values' scale; the diagonal of the others is 1. The
    authors set every diagonal to 1, which leaves a linear kernel no kernel.
    """
    values = values.double()
    if kernel.name == "rbf":
        return (-torch.cdist(values, values).square() / (2 * kernel.bandwidth**2)).exp()
    if kernel.name == "laplacian":
        return (-torch.cdist(values, values) / kernel.bandwidth).exp()
    if kernel.name == "cosine":
        values = F.normalize(values, dim=1)
    products = values @ values.T
    if kernel.name == "polynomial":
        products = products**3
    return products / products.diagonal().mean().clamp(min=torch.finfo(products.dtype).tiny)


@torch.no_grad()
def conditional_weights(values: Float[Tensor, "m dim"], own: slice, kernel: Kernel) -> Float[Tensor, "n m"]:
    """Rows `own` of K (K + lambda I)^-1, whose row i weighs each image as a draw from P(image | values of image i).

    Weights are float32, over the highest of their row. Negative ones, which a regression gives and a sampling has not,
    are 0, as in the authors' code. An image that its values tell nothing of, such as a zero under `linear`, is left
    with itself.

    In float64: in float32 the weights of a row are wrong by up to 4 % at lambda = 0.01 and 2,048 images, and by more
    than 100 % at 1e-4; and on a GPU the products would be those of TF32.
    """
    matrix = kernel_matrix(values, kernel)
    ridge = kernel.ridge * torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    # Without a check on the host, for which a GPU would wait.
    factor = torch.linalg.cholesky_ex(matrix + ridge).L
    # The two commute, so that the columns are the rows.
    weights = torch.cholesky_solve(matrix[:, own], factor).T.clamp(min=0)
    weights = weights / weights.amax(dim=1, keepdim=True).clamp(min=torch.finfo(weights.dtype).tiny)
    of_own = weights.diagonal(own.start).clamp(min=LEAST_OWN)
    return weights.diagonal_scatter(of_own, own.start).float()


def ccl_k(
    z: Float[Tensor, "views batch dim"],
    images: Int[Tensor, " batch"],
    values: Float[Tensor, "samples value_dim"],
    *,
    kernel: Kernel,
    temperature: float,
    base_temperature: float | None = None,
    form: Form = "log-of-mean",
    small: Float[Tensor, "small_views batch dim"] | None = None,
) -> ObjectiveValue:
    """Mean over anchors i of  -log( sum_p w_ip exp(z_i.z_p/t) / sum_{a != i} exp(z_i.z_a/t) ), the `log-of-mean`.

    p and a run over the views of the batches of all workers but i itself. w_ip is the weight of the image of p by
    `conditional_weights`, scaled so that sum_p w_ip = 1. `mean-of-logs` is the mean over anchors i of
    -sum_p w_ip log( exp(z_i.z_p/t) / sum_{a != i} exp(z_i.z_a/t) ), which is no less.

    Limits, each exact: with a kernel that is 1 within clusters and 0 between them, `mean-of-logs` is `cl_infonce` and
    `log-of-mean` SupCon's L_in (Khosla et al., arXiv 2004.11362, equation 3), at every ridge, as all weights of a
    cluster of m images are 1/(m + lambda). With values of which no two agree, both tend to InfoNCE as lambda falls to 0
    and the kernel's matrix has full rank. As lambda grows the weights become proportional to the kernel.

    Deviations from the paper: the weights are scaled to a sum of 1, where the paper's sum is 1 in the limit of small
    lambda alone; positives are the views of both sides, as in the authors' code, whose own image has weight 0, where
    here, as in the paper, it has its own; the normalizer is that of `cl_infonce`, where theirs counts the mean of the
    positives once more.

    Args:
        z: unit-length embeddings of the local batch.
        images: the index of each image in `values`.
        values: of all samples.
        temperature, base_temperature: as for `cl_infonce`.
        small: views that are the anchors in the place of `z`, and no candidates.

    Returns:
        As `cl_infonce`; the number of positives by `effective_positives`.
    """
    require_temperature(temperature)
    with torch.autocast(z.device.type, enabled=False):
        num_views, size = z.shape[:2]
        views = z.float().flatten(0, 1)
        candidates, (of_candidates,) = all_gather_with_ids(views, images.repeat(num_views)[None])
        everywhere = of_candidates.unflatten(0, (-1, num_views, size))[:, 0].flatten()
        weights = conditional_weights(values[everywhere], slice(rank() * size, (rank() + 1) * size), kernel)
        own = torch.arange(len(views), device=z.device) + rank() * len(views)
        batch = _Weighted(
            views if small is None else small.float().flatten(0, 1),
            candidates,
            own if small is None else None,
            weights,
            weights.diagonal(rank() * size) * (small is None),
            num_views,
        )
        losses = (_log_of_mean if form == "log-of-mean" else _mean_of_logs)(batch, temperature)
        num_positives = effective_positives(weights, batch.of_own, num_views).mean()
        return scaled(ObjectiveValue(losses.mean(), all_gather(num_positives).mean()), temperature, base_temperature)


def effective_positives(
    weights: Float[Tensor, "n m"], of_own: Float[Tensor, " n"], num_views: int
) -> Float[Tensor, " n"]:
    """1 / sum_p w_ip^2 of each image: how many positives of equal weight would be as many.

    Args:
        weights: of images, each of which has `num_views` views among the candidates.
        of_own: the weight of the own image, whose own view is left out; 0 where none is.
    """
    totals = num_views * weights.sum(dim=1) - of_own
    return totals.square() / (num_views * weights.square().sum(dim=1) - of_own.square())


@dataclass(frozen=True)
class _Weighted:
    """Anchors of n images, by view, and the candidates of m images, by worker and view.

    Attributes:
        own: as for `contrast`.
        weights: [n, m], of images.
        of_own: [n], of the view that `own` leaves out.
        num_views: of each image among the candidates.
    """

    anchors: Float[Tensor, "anchors dim"]
    candidates: Float[Tensor, "candidates dim"]
    own: Int[Tensor, " anchors"] | None
    weights: Float[Tensor, "n m"]
    of_own: Float[Tensor, " n"]
    num_views: int

    @property
    def repeats(self) -> int:
        """Anchors of an image."""
        return len(self.anchors) // len(self.weights)

    @property
    def totals(self) -> Float[Tensor, " anchors"]:
        """The sum of the weights of an anchor's positives."""
        return (self.num_views * self.weights.sum(dim=1) - self.of_own).repeat(self.repeats)


def _log_of_mean(batch: _Weighted, temperature: float) -> Float[Tensor, " anchors"]:
    """The loss of each anchor. Holds the matrix of all similarities."""
    similarities = (batch.anchors / temperature) @ batch.candidates.T
    if batch.own is not None:
        similarities = similarities.scatter(1, batch.own[:, None], -torch.inf)
    size = len(batch.weights)
    of_views = batch.weights.log().unflatten(1, (-1, 1, size)).expand(-1, -1, batch.num_views, -1).flatten(1)
    weighted = (similarities.unflatten(0, (-1, size)) + of_views).flatten(0, 1)
    losses: Tensor = similarities.logsumexp(dim=1) - weighted.logsumexp(dim=1) + batch.totals.log()
    return losses


def _mean_of_logs(batch: _Weighted, temperature: float) -> Float[Tensor, " anchors"]:
    """The loss of each anchor, by one product with the weighted sums of embeddings."""
    of_images = batch.candidates.unflatten(0, (-1, batch.num_views, len(batch.weights))).sum(dim=1).flatten(0, 1)
    attraction = (batch.anchors * (batch.weights @ of_images).repeat(batch.repeats, 1)).sum(dim=1)
    if batch.own is not None:
        selves = (batch.anchors * batch.candidates[batch.own]).sum(dim=1)
        attraction = attraction - batch.of_own.repeat(batch.repeats) * selves
    normalizers = log_normalizers(batch.anchors, batch.candidates, own=batch.own, temperature=temperature)
    losses: Tensor = normalizers - attraction / temperature / batch.totals
    return losses
