"""The logarithm of the sum of exponentials of an anchor's similarities, block by block, and its gradient.

The matrix of similarities is never whole in memory: the backward pass computes each block again.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

BLOCK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
"""Similarities in memory at a time."""


def log_normalizers(
    anchors: Float[Tensor, "n dim"],
    candidates: Float[Tensor, "m dim"],
    *,
    own: Int[Tensor, " n"] | None,
    temperature: float,
) -> Float[Tensor, " n"]:
    """log sum_{a != own(i)} exp(z_i.z_a/t) for each anchor i, float32.

    Args:
        anchors, candidates: float32; the same tensor where every anchor is a candidate of all others.
        own: the candidate that is left out for each anchor; None leaves out none.
    """
    with torch.autocast(anchors.device.type, enabled=False):
        if anchors is candidates and own is not None:
            result: Tensor = _SymmetricNormalizer.apply(anchors, own, temperature)
        else:
            result = _Normalizer.apply(anchors, candidates, own, temperature)
        return result


class _Normalizer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Tensor, candidates: Tensor, own: Tensor | None, temperature: float) -> Tensor:
        result = _forward(anchors, candidates, own, temperature)
        ctx.save_for_backward(anchors, candidates, own, result)
        ctx.temperature = temperature
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        anchors, candidates, own, normalizers = ctx.saved_tensors
        needs_anchors, needs_candidates = ctx.needs_input_grad[:2]
        to_anchors = torch.empty_like(anchors) if needs_anchors else None
        to_candidates = torch.zeros_like(candidates) if needs_candidates else None
        weights = gradient / ctx.temperature
        for rows in _row_blocks(anchors, candidates):
            shares = _similarities(anchors, candidates, own, ctx.temperature, rows)
            shares.sub_(normalizers[rows, None]).exp_().mul_(weights[rows, None])
            if to_anchors is not None:
                torch.mm(shares, candidates, out=to_anchors[rows])
            if to_candidates is not None:
                to_candidates.addmm_(shares.T, anchors[rows])
        return to_anchors, to_candidates, None, None


class _SymmetricNormalizer(torch.autograd.Function):
    """Where the anchors are the candidates: one product per block gives what both roles contribute to a gradient."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, own: Tensor, temperature: float) -> Tensor:
        result = _forward(z, z, own, temperature)
        ctx.save_for_backward(z, own, result)
        ctx.temperature = temperature
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        z, own, normalizers = ctx.saved_tensors
        result, weights = torch.empty_like(z), gradient / ctx.temperature
        for rows in _row_blocks(z, z):
            similarities = _similarities(z, z, own, ctx.temperature, rows)
            shares = (similarities - normalizers[None, :]).exp_().mul_(weights[None, :])
            shares.add_(similarities.sub_(normalizers[rows, None]).exp_().mul_(weights[rows, None]))
            torch.mm(shares, z, out=result[rows])
        return result, None, None


def _forward(anchors: Tensor, candidates: Tensor, own: Tensor | None, temperature: float) -> Tensor:
    result = anchors.new_empty(len(anchors))
    for rows in _row_blocks(anchors, candidates):
        similarities = _similarities(anchors, candidates, own, temperature, rows)
        highest = similarities.amax(dim=1)
        # Without any candidate the sum is empty; what is returned then has no part in a loss.
        highest = torch.where(highest.isinf(), torch.zeros_like(highest), highest)
        total = similarities.sub_(highest[:, None]).exp_().sum(dim=1)
        result[rows] = highest + total.clamp(min=torch.finfo(total.dtype).tiny).log()
    return result


def _similarities(anchors: Tensor, candidates: Tensor, own: Tensor | None, temperature: float, rows: slice) -> Tensor:
    block = torch.mm(anchors[rows] / temperature, candidates.T)
    if own is not None:
        block.scatter_(1, own[rows, None], -torch.inf)
    return block


def _row_blocks(anchors: Tensor, candidates: Tensor) -> list[slice]:
    size = max(1, BLOCK_ELEMENTS.get(anchors.device.type, 2**20) // max(len(candidates), 1))
    return [slice(start, start + size) for start in range(0, len(anchors), size)]
