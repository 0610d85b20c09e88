"""Cl-InfoNCE: views whose cluster is the same attract, all others repel.

Takes embeddings and cluster ids; knows nothing of where the ids come from. Singleton clusters give NT-Xent (InfoNCE),
class labels give SupCon. Only one block of rows of the matrix of similarities exists at a time, so that memory grows
linearly in the batch.
"""

import math
from dataclasses import dataclass
from itertools import permutations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clray.objective.gather import all_gather, all_gather_with_ids, rank, world_size
from clray.objective.normalizer import log_normalizers


@dataclass(frozen=True)
class ObjectiveValue:
    """Attributes: the loss of this worker, a float32 scalar; positives per anchor, the mean over the global batch."""

    loss: Tensor
    num_positives: Tensor


def mean_value(values: list[ObjectiveValue]) -> ObjectiveValue:
    """The mean of losses, and that of their positives per anchor."""
    losses, num_positives = ([getattr(each, name) for each in values] for name in ("loss", "num_positives"))
    return ObjectiveValue(torch.stack(losses).mean(), torch.stack(num_positives).mean())


def scaled(value: ObjectiveValue, temperature: float, base_temperature: float | None) -> ObjectiveValue:
    """The loss times t/b; see `cl_infonce`."""
    if base_temperature is None:
        return value
    return ObjectiveValue(value.loss * (temperature / base_temperature), value.num_positives)


def cl_infonce(
    z: Float[Tensor, "views batch dim"],
    cluster_ids: Int[Tensor, "*granularities batch"],
    *,
    temperature: float,
    base_temperature: float | None = None,
    cluster_weight: float = 1.0,
    images: Int[Tensor, " batch"] | None = None,
) -> ObjectiveValue:
    """Mean over anchors i of  -1/W(i) sum_{p in P(i)} w_p log( exp(z_i.z_p/t) / sum_{a != i} exp(z_i.z_a/t) ).

    P(i) are the other views with the anchor's cluster id, and W(i) is the sum of their weights. w_p is 1 for a view of
    the anchor's own image and `cluster_weight` for one of another image. Positives and negatives come from the batches
    of all workers. The value on each worker is its share times the number of workers, so that the mean over workers, as
    DDP takes it of gradients, is the loss of the global batch.

    Args:
        z: unit-length embeddings of the local batch.
        cluster_ids: the cluster of each image, at least 0; with several granularities the mean of their losses.
        temperature: t > 0.
        base_temperature: with a number b the loss is multiplied by t/b, which takes out the growth of the gradient with
            1/t (0.07 in the authors' code).
        cluster_weight: 0..1. 1 weighs all positives alike; 0 is InfoNCE.
        images: the index of each image, at least 0, which tells its own views; needed for a weight below 1.

    Returns:
        An anchor without a positive is left out of the mean, and 0 is returned where none has one. With one cluster the
        loss is the mean log-normalizer less the mean similarity.

    Source: SupCon's L_out (Khosla et al., arXiv 2004.11362, equation 2) with cluster ids for labels, which is what the
    authors of Cl-InfoNCE train (arXiv 2202.06670). Theirs contrasts within each worker's batch, or gathers without
    gradients, which leaves out what a view does as another worker's positive and negative; here over all workers.
    """
    require_temperature(temperature)
    rows = weighted_ids(cluster_ids.reshape(-1, z.shape[1]), images, cluster_weight)
    anchors, ids = z.float().flatten(0, 1), rows.repeat(1, z.shape[0])
    candidates, candidate_ids = all_gather_with_ids(anchors, ids)
    own = torch.arange(len(anchors), device=z.device) + rank() * len(anchors)
    value = contrast(
        anchors, ids, candidates, candidate_ids, own=own, temperature=temperature, cluster_weight=cluster_weight
    )
    return scaled(value, temperature, base_temperature)


def cross_view_cl_infonce(
    z: Float[Tensor, "views batch dim"],
    cluster_ids: Int[Tensor, "*granularities batch"],
    *,
    temperature: float,
    base_temperature: float | None = None,
    cluster_weight: float = 1.0,
    images: Int[Tensor, " batch"] | None = None,
) -> ObjectiveValue:
    """Cl-InfoNCE whose candidates are those of another view alone; the anchor's own view neither attracts nor repels.

    For every ordered pair of views (v, w) the mean over anchors i of
    -1/|P(i)| sum_{p in P(i)} log( exp(z_vi.z_wp/t) / sum_a exp(z_vi.z_wa/t) ), and of these losses the mean. P(i) are
    the images of i's cluster, i itself among them. Arguments, workers and return value are those of `cl_infonce`.

    Source: the cluster head of the authors' dual-head variant (Tsai et al., arXiv 2106.02869), here for both views.
    """
    require_temperature(temperature)
    views, ids = z.float(), weighted_ids(cluster_ids.reshape(-1, z.shape[1]), images, cluster_weight)
    gathered = [all_gather_with_ids(view, ids) for view in views]
    values = [
        contrast(views[v], ids, *gathered[w], own=None, temperature=temperature, cluster_weight=cluster_weight)
        for v, w in permutations(range(len(views)), 2)
    ]
    return scaled(mean_value(values), temperature, base_temperature)


def cl_infonce_of_small_views(
    small: Float[Tensor, "small_views batch dim"],
    z: Float[Tensor, "views batch dim"],
    cluster_ids: Int[Tensor, "*granularities batch"],
    *,
    temperature: float,
    base_temperature: float | None = None,
    cluster_weight: float = 1.0,
    images: Int[Tensor, " batch"] | None = None,
) -> ObjectiveValue:
    """`cl_infonce` of small views as anchors, which are no candidates: P(i) and A(i) hold the views `z` alone.

    The positives of a small view are the views of its own image, and of all others of its cluster; its negatives all
    other views of the batches of all workers. Weights, workers and return value are those of `cl_infonce`.

    Source: who predicts whom in multi-crop, Caron et al., arXiv 2006.09882, equation 5; there from codes, which pass
    on no gradient, where here the views do.
    """
    require_temperature(temperature)
    ids, anchors = (
        weighted_ids(cluster_ids.reshape(-1, z.shape[1]), images, cluster_weight),
        small.float().flatten(0, 1),
    )
    candidates, candidate_ids = all_gather_with_ids(z.float().flatten(0, 1), ids.repeat(1, len(z)))
    of_anchors = ids.repeat(1, len(small))
    value = contrast(
        anchors,
        of_anchors,
        candidates,
        candidate_ids,
        own=None,
        temperature=temperature,
        cluster_weight=cluster_weight,
    )
    return scaled(value, temperature, base_temperature)


def weighted_ids(
    cluster_ids: Int[Tensor, "granularities n"], images: Int[Tensor, " n"] | None, cluster_weight: float
) -> Int[Tensor, "rows n"]:
    """The ids that `contrast` compares under this weight: clusters, images, or images and then clusters.

    Raises:
        ValueError: a weight outside 0..1, or one below 1 without images.
    """
    if not 0 <= cluster_weight <= 1:
        raise ValueError(f"cluster_weight must be between 0 and 1; got {cluster_weight}")
    if cluster_weight == 1:
        return cluster_ids
    if images is None:
        raise ValueError(f"cluster_weight={cluster_weight} needs images, which tell an anchor's own views")
    own = images.to(cluster_ids.dtype)[None]
    return own if cluster_weight == 0 else torch.cat([own, cluster_ids])


def contrast(
    anchors: Float[Tensor, "n dim"],
    ids: Int[Tensor, "granularities n"],
    candidates: Float[Tensor, "m dim"],
    candidate_ids: Int[Tensor, "granularities m"],
    *,
    own: Int[Tensor, " n"] | None,
    temperature: float,
    cluster_weight: float = 1.0,
) -> ObjectiveValue:
    """The multi-positive loss of local anchors against candidates, such as the keys of a queue.

    Args:
        ids, candidate_ids: by `weighted_ids`.
        own: the candidate that is the anchor itself, neither positive nor negative; None where there is none.
    """
    normalizers = log_normalizers(anchors, candidates, own=own, temperature=temperature)
    attractions = [
        _attraction(anchors, each, candidates, of_candidates, own=own)
        for each, of_candidates in zip(ids, candidate_ids, strict=True)
    ]
    if 0 < cluster_weight < 1:
        image, *clusters = attractions
        attractions = [image + cluster_weight * (each - image) for each in clusters]
    positives = torch.stack([each[1] for each in attractions]).detach()
    losses = [
        _losses(normalizers, similarity, num_positives, temperature=temperature)
        for (similarity, _), num_positives in zip(attractions, positives, strict=True)
    ]
    # In one message: anchors with a positive, and positives, of each granularity.
    totals = all_gather(torch.stack([(positives > 0).sum(dim=1).float(), positives.sum(dim=1)])).sum(dim=0)
    shares = torch.stack(losses).sum(dim=1) * world_size() / totals[0].clamp(min=1)
    return ObjectiveValue(shares.mean(), totals[1].mean() / (len(anchors) * world_size()))


def _attraction(
    anchors: Tensor, ids: Tensor, candidates: Tensor, candidate_ids: Tensor, *, own: Tensor | None
) -> Float[Tensor, "2 n"]:
    """The sum of each anchor's similarities to its positives, and their number.

    The similarities of an anchor to its positives add up to one product with the sum of their embeddings, so that no
    matrix of positives is needed.
    """
    slots = _compact(torch.cat([candidate_ids, ids]))
    of_candidates, of_anchors = slots[: len(candidates)], slots[len(candidates) :]
    sums = anchors.new_zeros(len(slots), anchors.shape[1]).index_add(0, of_candidates, candidates)
    counts = anchors.new_zeros(len(slots)).index_add(0, of_candidates, anchors.new_ones(len(candidates)))
    similarity, num_positives = (anchors * sums[of_anchors]).sum(dim=1), counts[of_anchors]
    if own is not None:
        similarity = similarity - (anchors * candidates[own]).sum(dim=1)
        num_positives = num_positives - 1
    return torch.stack([similarity, num_positives])


def _losses(normalizers: Tensor, similarity: Tensor, num_positives: Tensor, *, temperature: float) -> Tensor:
    """The loss of each anchor, 0 without a positive."""
    has_positive = num_positives > 0
    means = similarity / temperature / torch.where(has_positive, num_positives, torch.ones_like(num_positives))
    return torch.where(has_positive, normalizers - means, torch.zeros_like(means))


def instance_contrast(
    queries: Float[Tensor, "batch dim"],
    keys: Float[Tensor, "batch dim"],
    negatives: list[Float[Tensor, "_ dim"]],
    *,
    temperature: float,
) -> ObjectiveValue:
    """Mean of  -log( exp(q_i.k_i/t) / (exp(q_i.k_i/t) + sum_j exp(q_i.n_j/t)) )  over the local batch.

    Args:
        negatives: in any number of pieces; without any the loss is 0.

    Source: InfoNCE as MoCo and PCL train it, against a queue of negatives (arXiv 1911.05722, equation 1).
    """
    similarity = (queries * keys).sum(dim=1) / temperature
    if not negatives:
        return ObjectiveValue(similarity.sum() * 0, similarity.new_ones(()))
    pieces = [log_normalizers(queries, piece, own=None, temperature=temperature) for piece in negatives]
    normalizers = torch.stack(pieces).logsumexp(dim=0)
    losses = torch.logaddexp(normalizers, similarity) - similarity
    return ObjectiveValue(losses.mean(), losses.new_ones(()))


def pair_sampled_cl_infonce(
    x: Float[Tensor, "batch dim"], y: Float[Tensor, "batch dim"], *, temperature: float
) -> Float[Tensor, ""]:
    """-1/n sum_i log( exp(x_i.y_i/t) / (1/n sum_j exp(x_i.y_j/t)) ), over the global batch of n pairs.

    Its negative estimates from below the divergence that is at most H(Z), in nats, where x_i and y_i are drawn
    independently from one cluster Z = z_i and each is augmented once; no estimate exceeds log n.

    Args:
        x, y: unit-length embeddings of the pairs.
        temperature: t > 0.

    Source: Tsai et al., arXiv 2202.06670, definition of Cl-InfoNCE and theorem on its maximum.
    """
    require_temperature(temperature)
    x, y = x.float(), y.float()
    candidates = all_gather(y).flatten(0, 1)
    normalizers = log_normalizers(x, candidates, own=None, temperature=temperature)
    losses = normalizers - (x * y).sum(dim=1) / temperature - math.log(len(candidates))
    return losses.mean()


def require_temperature(temperature: float) -> None:
    """Raise ValueError unless the temperature is a number above 0."""
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be greater than 0; got {temperature}")


def _compact(ids: Int[Tensor, " m"]) -> Int[Tensor, " m"]:
    """Equal ids as equal numbers below m, int64; unlike torch.unique without waiting for a GPU."""
    ordered, order = ids.sort()
    steps = torch.cat([order.new_zeros(1), (ordered[1:] != ordered[:-1]).to(order.dtype)])
    return torch.empty_like(order).scatter_(0, order, steps.cumsum(0))
