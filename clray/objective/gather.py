"""All-gather over the workers of a process group, with gradients; the identity for one worker."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


class _AllGather(torch.autograd.Function):
    """Every worker's tensor, stacked. Backward adds up what all workers' losses say about this worker's tensor."""

    @staticmethod
    def forward(_: Any, local: Tensor) -> Tensor:
        gathered = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, local.contiguous())
        return torch.stack(gathered)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]


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
