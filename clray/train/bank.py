"""The embeddings that training computes anyway, kept for the next clustering."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F


class EmbeddingBank:
    """The last embedding of each of this worker's samples, float16 [n, dim] on the training device.

    Worker `rank` holds the samples whose dataset index is `rank` modulo `world_size`, as `shard_indices` deals them.
    """

    def __init__(
        self, num_samples: int, dim: int, device: torch.device, *, momentum: float, rank: int, world_size: int
    ) -> None:
        """Args: samples of the whole data set; momentum m keeps m of the old embedding and takes 1 - m of the new."""
        self.momentum, self.rank, self.world_size = momentum, rank, world_size
        num_own = len(range(rank, num_samples, world_size))
        self.vectors = torch.zeros(num_own, dim, dtype=torch.float16, device=device)
        self.seen = torch.zeros(num_own, dtype=torch.bool, device=device)

    def update(self, indices: Int[Tensor, " batch"], z: Float[Tensor, "batch dim"]) -> None:
        """Take the embeddings of a batch; those of samples that belong to other workers are left out."""
        if self.world_size > 1:
            own = indices % self.world_size == self.rank
            indices, z = indices[own], z[own]
        rows = indices // self.world_size
        if self.momentum > 0:
            weight = torch.where(self.seen[rows], self.momentum, 0.0)[:, None]
            z = weight * self.vectors[rows].float() + (1 - weight) * z
        self.vectors[rows] = z.half()
        self.seen[rows] = True

    def unseen(self) -> Int[np.ndarray, " m"]:
        """Dataset indices of this worker's samples that no batch has held yet."""
        rows = torch.nonzero(~self.seen).flatten().cpu().numpy()
        return rows * self.world_size + self.rank

    def unit_vectors(self) -> Float[np.ndarray, "n dim"]:
        """The embeddings at unit length, float32, in dataset order."""
        return F.normalize(self.vectors.float(), dim=1).cpu().numpy()

    def state_dict(self) -> dict[str, Any]:
        return {"vectors": self.vectors, "seen": self.seen}

    def load_rows(self, state: dict[str, Any]) -> None:
        """Take this worker's rows of a bank of the whole data set, as `merge_banks` makes it."""
        self.vectors.copy_(state["vectors"][self.rank :: self.world_size])
        self.seen.copy_(state["seen"][self.rank :: self.world_size])


def merge_banks(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The banks of all workers, by rank, as one over the whole data set, on the CPU."""
    total = sum(len(part["seen"]) for part in parts)
    merged = {name: torch.empty(total, *value.shape[1:], dtype=value.dtype) for name, value in parts[0].items()}
    for rank, part in enumerate(parts):
        for name, value in part.items():
            merged[name][rank :: len(parts)] = value.cpu()
    return merged
