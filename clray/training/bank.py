"""The embeddings that training computes anyway, kept for the next clustering."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from clray.data.transfer import to_device
from clray.kmeans.vectors.tensors import TensorRows


class EmbeddingBank:
    """The last embedding of each of this worker's samples, float16 [n, dim] on the training device.

    A worker holds the samples that `shard_indices` deals it.
    """

    def __init__(
        self, shard: Int[np.ndarray, " n"], dim: int, device: torch.device, *, momentum: float
    ) -> None:  # fmt: skip
        """Args: this worker's dataset indices, ascending; momentum m keeps m of the old embedding."""
        self.momentum, self.shard, self.device = momentum, shard, device
        # Then its place in the bank is a sample's index.
        self.is_leading = bool(shard[-1] == len(shard) - 1)
        # One row more than there are samples takes what is left out.
        self._vectors = torch.zeros(len(shard) + 1, dim, dtype=torch.float16, device=device)
        self.vectors = self._vectors[:-1]
        # On the host, as are the indices of every batch, so that nobody waits for the device.
        self.seen = np.zeros(len(shard), np.bool_)

    def update(self, indices: Int[Tensor, " batch"], z: Float[Tensor, "batch dim"]) -> None:
        """Take the embeddings of a batch; those of samples that belong to other workers are left out.

        Args:
            indices: on the host.
            z: on the device, of unit length.
        """
        places = indices.numpy()
        if not self.is_leading:
            places = np.minimum(np.searchsorted(self.shard, places), len(self.shard) - 1)
            places = np.where(self.shard[places] == indices.numpy(), places, len(self.shard))
        self.seen[places[places < len(self.shard)]] = True
        rows = to_device(places, self.device)
        if self.momentum > 0:
            old = self._vectors[rows].float()
            # What was never seen is 0.
            weight = self.momentum * (old != 0).any(dim=1, keepdim=True)
            z = weight * old + (1 - weight) * z
        self._vectors[rows] = z.half()

    def unseen(self) -> Int[np.ndarray, " m"]:
        """Dataset indices of this worker's samples that no batch has held yet."""
        return self.shard[~self.seen]

    def unit_vectors(self) -> Float[Tensor, "n dim"]:
        """A copy of the embeddings at unit length, float32, in dataset order, on the device."""
        return F.normalize(self.vectors.float(), dim=1)

    def unit_rows(self) -> TensorRows:
        """The same where they lie, in float16, scaled as they are read; later updates show in them."""
        return TensorRows(self.vectors, is_unit=True)

    def state_dict(self) -> dict[str, Any]:
        """As they lie, which later updates show in."""
        return {"vectors": self.vectors, "seen": torch.from_numpy(self.seen)}

    def load_rows(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave of this worker's samples, or of those of the whole data set."""
        vectors, seen = state["vectors"], state["seen"].numpy()
        if len(seen) != len(self.shard):
            vectors, seen = vectors[torch.from_numpy(self.shard)], seen[self.shard]
        self.vectors.copy_(vectors)
        self.seen = seen.copy()
