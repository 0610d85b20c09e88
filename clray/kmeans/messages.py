"""Arrays between the workers of a process group, as tensors on their devices: NCCL carries nothing else.

Worker 0 leads: it sends to all and receives from all. Every worker must make the same call.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

LEADER = 0
DTYPES = (np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.uint8))


def send(code: int, arrays: Sequence[np.ndarray], device: torch.device) -> None:
    """Send a code and arrays of one or two dimensions to all others, who `receive` them."""
    described = [(DTYPES.index(each.dtype), each.ndim, len(each), each[0].size if each.size else 0) for each in arrays]
    dist.broadcast(torch.tensor([code, len(arrays)], device=device), LEADER)
    if arrays:
        dist.broadcast(torch.tensor(described, device=device), LEADER)
    for each in arrays:
        if each.size:
            dist.broadcast(torch.from_numpy(np.array(each)).to(device), LEADER)


def receive(device: torch.device) -> tuple[int, list[np.ndarray]]:
    """The code and arrays that the leader sends."""
    head = torch.empty(2, dtype=torch.int64, device=device)
    dist.broadcast(head, LEADER)
    code, count = head.tolist()
    if count == 0:
        return code, []
    described = torch.empty(count, 4, dtype=torch.int64, device=device)
    dist.broadcast(described, LEADER)
    arrays = []
    for dtype, ndim, num_rows, width in described.tolist():
        shape = (num_rows, width) if ndim == 2 else (num_rows,)
        held = torch.from_numpy(np.empty(shape, DTYPES[dtype])).to(device)
        if held.numel():
            dist.broadcast(held, LEADER)
        arrays.append(held.cpu().numpy())
    return code, arrays


def counts_of_all(count: int, device: torch.device) -> list[int]:
    """What each worker counts, by rank, on all."""
    counts = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=device)
    counts[dist.get_rank()] = count
    dist.all_reduce(counts)
    return [int(each) for each in counts.tolist()]


def sum_on_leader(values: Tensor) -> Tensor:
    """The sum over the workers; on the others than the leader it has no meaning."""
    dist.reduce(values, LEADER)
    return values


def rows_on_leader(rows: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """The rows of each worker on the leader; nothing on the others.

    Args:
        counts: rows of each worker, by rank. All send as many as the most, as a gather wants equal shapes.
    """
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(rows)] = rows
    if dist.get_rank() != LEADER:
        dist.gather(padded, None, LEADER)
        return []
    parts = [torch.empty_like(padded) for _ in counts]
    dist.gather(padded, parts, LEADER)
    return [part[:count] for part, count in zip(parts, counts, strict=True)]


def rows_from_leader(parts: Sequence[np.ndarray] | None, counts: Sequence[int], like: Tensor) -> np.ndarray:
    """This worker's rows of what the leader holds of each worker; `parts` is None on the others.

    Args:
        like: an empty tensor of their type and device.
    """
    own = like.new_zeros(max(counts))
    if parts is None:
        dist.scatter(own, None, LEADER)
    else:
        padded = [torch.zeros_like(own) for _ in counts]
        for held, part in zip(padded, parts, strict=True):
            held[: len(part)] = torch.from_numpy(np.ascontiguousarray(part)).to(like.device)
        dist.scatter(own, padded, LEADER)
    return own[: counts[dist.get_rank()]].cpu().numpy()
