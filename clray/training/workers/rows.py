"""Rows of numbers that the workers of a group hold, brought together on the first."""

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int

from clray.objective.gather import world_size

CHUNK_BYTES = 2**26


def rows_on_first(
    rows: Float[np.ndarray, "n dim"], shards: list[Int[np.ndarray, " n"]], rank: int
) -> Float[np.ndarray, "total dim"] | None:
    """The rows of all workers in the order of the data set on rank 0, None on the others; every rank must call it.

    They travel from and into arrays in chunks: the first holds its result and one chunk, the others no copy.

    Args:
        rows: of this worker, float32.
        shards: the places of each worker's rows.
    """
    if world_size() == 1:
        return rows
    dim = rows.shape[1]
    size = max(1, CHUNK_BYTES // (4 * max(dim, 1)))
    if rank > 0:
        for start in range(0, len(rows), size):
            dist.send(torch.from_numpy(rows[start : start + size]), dst=0)
        return None
    whole, chunk = np.empty((sum(map(len, shards)), dim), np.float32), torch.empty(size, dim)
    whole[shards[0]] = rows
    for sender, shard in enumerate(shards[1:], start=1):
        for start in range(0, len(shard), size):
            places = shard[start : start + size]
            dist.recv(chunk[: len(places)], src=sender)
            whole[places] = chunk[: len(places)].numpy()
    return whole
