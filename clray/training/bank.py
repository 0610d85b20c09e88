"""The embeddings that training computes anyway, kept for the next clustering."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clray.kmeans.vectors.tensors import TensorRows


class EmbeddingBank:
    """The last embedding of each of this worker's samples, float16 [n, dim] on the training device.

    A worker holds the samples that `shard_indices` deals it.
    """

    def __init__(
        self, shard: Int[np.ndarray, " n"], dim: int, device: torch.device, *, momentum: float
    ) -> None:  # fmt: skip
        """Args: this worker's dataset indices, ascending; momentum m keeps m of the old embedding."""
        self.momentum = momentum
        self.shard = torch.from_numpy(shard).to(device)
        # Then its place in the bank is a sample's index.
        self.is_leading = bool(shard[-1] == len(shard) - 1)
        # One row more than there are samples takes what is left out.
        self._vectors = torch.zeros(len(shard) + 1, dim, dtype=torch.float16, device=device)
        self._seen = torch.zeros(len(shard) + 1, dtype=torch.bool, device=device)
        self.vectors, self.seen = self._vectors[:-1], self._seen[:-1]

    def update(self, indices: Int[Tensor, " batch"], z: Float[Tensor, "batch dim"]) -> None:
        """Take the embeddings of a batch; those of samples that belong to other workers are left out."""
        rows = indices
        if not self.is_leading:
            rows = torch.searchsorted(self.shard, indices).clamp(max=len(self.shard) - 1)
            rows = torch.where(self.shard[rows] == indices, rows, len(self.shard))
        if self.momentum > 0:
            weight = torch.where(self._seen[rows], self.momentum, 0.0)[:, None]
            z = weight * self._vectors[rows].float() + (1 - weight) * z
        self._vectors[rows] = z.half()
        self._seen.index_fill_(0, rows, True)

    def unseen(self) -> Int[np.ndarray, " m"]:
        """Dataset indices of this worker's samples that no batch has held yet."""
        return self.shard[~self.seen].cpu().numpy()

    def unit_vectors(self) -> Float[np.ndarray, "n dim"]:
        """The embeddings at unit length, float32, in dataset order."""
        return self.unit_rows().numpy()

    def unit_rows(self) -> TensorRows:
        """The same where they lie, in float16, scaled as they are read; later updates show in them."""
        return TensorRows(self.vectors, is_unit=True)

    def state_dict(self) -> dict[str, Any]:
        """On the CPU: a tensor that is sent from a GPU makes its receiver use the sender's."""
        return {"vectors": self.vectors.cpu(), "seen": self.seen.cpu()}

    def load_rows(self, state: dict[str, Any]) -> None:
        """Take this worker's rows of a bank of the whole data set, as `merge_banks` makes it."""
        shard = self.shard.cpu()
        self.vectors.copy_(state["vectors"][shard])
        self.seen.copy_(state["seen"][shard])


def merge_banks(parts: list[dict[str, Any]], shards: list[Int[np.ndarray, " n"]]) -> dict[str, Any]:
    """The banks of all workers, by rank, as one over the whole data set, on the CPU."""
    total = sum(map(len, shards))
    merged = {name: torch.empty(total, *value.shape[1:], dtype=value.dtype) for name, value in parts[0].items()}
    for shard, part in zip(shards, parts, strict=True):
        for name, value in part.items():
            merged[name][torch.from_numpy(shard)] = value.cpu()
    return merged
