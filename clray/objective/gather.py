"""All-gather over the workers of a process group, with gradients; the identity for one worker."""

from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor


class _AllGather(torch.autograd.Function):
    """Every worker's tensor, stacked. Backward adds up what all workers' losses say about this worker's tensor."""

    @staticmethod
    def forward(_: Any, local: Tensor) -> Tensor:
        return _gathered(local)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return _reduced(gradient)


class _GatherTogether(torch.autograd.Function):
    """Rows of every worker with their ids, in one message: the bits of the ids travel as further float32 columns."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        columns = ids.T.clone(memory_format=torch.contiguous_format).view(torch.float32)
        gathered = _gathered(torch.cat([rows, columns], dim=1))
        everywhere, of_ids = gathered.split([rows.shape[1], columns.shape[1]], dim=2)
        found = of_ids.flatten(0, 1).contiguous().view(ids.dtype).T
        ctx.mark_non_differentiable(found)
        return everywhere.flatten(0, 1), found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, _: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004
        return _reduced(gradient.unflatten(0, (dist.get_world_size(), -1))), None


def _gathered(local: Tensor) -> Tensor:
    """[world, ...], by the one call that fills one tensor: NCCL copies nothing more."""
    gathered = local.new_empty(dist.get_world_size(), *local.shape)
    dist.all_gather_into_tensor(gathered.view(-1), local.contiguous().view(-1))
    return gathered


def _reduced(gradient: Tensor) -> Tensor:
    """The sum over workers of this worker's part of [world, ...]; a world-th of what an all-reduce would bring."""
    own = torch.empty_like(gradient[0], memory_format=torch.contiguous_format)
    dist.reduce_scatter_tensor(own.view(-1), gradient.contiguous().view(-1))
    return own


def world_size() -> int:
    """Workers in the process group; 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This worker's rank; 0 without a process group."""
    return dist.get_rank() if world_size() > 1 else 0


def all_gather(local: Tensor) -> Tensor:
    """Tensors of equal shape from all workers, [world, ...]; gradients flow back to where each came from.

    Every rank must call it.
    """
    if world_size() == 1:
        return local[None]
    gathered: Tensor = _AllGather.apply(local)
    return gathered


def all_gather_with_ids(
    rows: Float[Tensor, "n dim"], ids: Int[Tensor, "granularities n"]
) -> tuple[Float[Tensor, "m dim"], Int[Tensor, "granularities m"]]:
    """Rows of all workers, by rank, and their ids, in one message; gradients flow back to where each row came from.

    Every rank must call it.

    Args:
        rows: float32, as many on each worker.
        ids: int32 or int64.
    """
    if world_size() == 1:
        return rows, ids
    found: tuple[Tensor, Tensor] = _GatherTogether.apply(rows, ids)
    return found
