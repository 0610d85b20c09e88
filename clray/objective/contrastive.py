"""Multi-positive Cl-InfoNCE: views whose cluster is the same attract, all others repel.

Takes embeddings and cluster ids; knows nothing of where the ids come from. Singleton clusters give NT-Xent (InfoNCE),
class labels give SupCon.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from clray.objective.gather import all_gather, rank, world_size


def cl_infonce(
    z: Float[Tensor, "views batch dim"],
    cluster_ids: Int[Tensor, " batch"],
    *,
    temperature: float,
    base_temperature: float | None = None,
) -> Float[Tensor, ""]:
    """Mean over anchors i of  -1/|P(i)| sum_{p in P(i)} log( exp(z_i.z_p/t) / sum_{a != i} exp(z_i.z_a/t) ).

    P(i) are the other views with the anchor's cluster id. Positives and negatives come from the batches of all workers.
    The value returned on each worker is its share times the number of workers, so that the mean over workers, as DDP
    takes it of gradients, is the loss of the global batch.

    Args:
        z: unit-length embeddings of the local batch.
        cluster_ids: the cluster of each image, at least 0.
        temperature: t > 0.
        base_temperature: with a number b the loss is multiplied by t/b, which takes out the growth of the gradient with
            1/t (0.07 in the authors' code).

    Returns:
        A float32 scalar; an anchor without a positive is left out of the mean, and 0 is returned where none has one.

    Source: SupCon's L_out (Khosla et al., arXiv 2004.11362, equation 2) with cluster ids for labels, which is what the
    authors of Cl-InfoNCE train (arXiv 2202.06670). Theirs contrasts within each worker's batch; here over all workers.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0; got {temperature}")
    anchors = z.float().flatten(0, 1)
    ids = cluster_ids.repeat(z.shape[0])
    candidates = all_gather(anchors).flatten(0, 1)
    candidate_ids = all_gather(ids).flatten()
    own = torch.arange(len(anchors), device=z.device) + rank() * len(anchors)

    logits = anchors @ candidates.T / temperature
    is_self = torch.zeros_like(logits, dtype=torch.bool).scatter_(1, own[:, None], True)
    logits = logits.masked_fill(is_self, -torch.inf)
    log_normalizer = logits.logsumexp(dim=1)

    is_positive = (ids[:, None] == candidate_ids[None, :]) & ~is_self
    num_positives = is_positive.sum(dim=1)
    # sum_p log(p) = sum_p logit - |P| log-normalizer; masking first keeps -inf * 0 out of the sum.
    mean_logit = logits.masked_fill(~is_positive, 0).sum(dim=1) / num_positives.clamp(min=1)
    has_positive = num_positives > 0
    losses = torch.where(has_positive, log_normalizer - mean_logit, torch.zeros_like(mean_logit))

    num_anchors = all_gather(has_positive.sum()).sum().clamp(min=1)
    loss = losses.sum() * world_size() / num_anchors
    return loss if base_temperature is None else loss * (temperature / base_temperature)
