"""k-means where a run trains: each worker searches its own vectors on its own device, without Ray's shards."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from clray.config.sections import KMeansConfig
from clray.errors import UserError
from clray.kmeans.group_shards import Ask, GroupShards, answer
from clray.kmeans.lloyd import Clustering, LocalShards
from clray.kmeans.messages import counts_of_all, rows_from_leader, send
from clray.kmeans.refresh import Done, refresh_clusters
from clray.kmeans.shards.choice import torch_shard
from clray.kmeans.shards.port import Shard
from clray.kmeans.vectors.tensors import TensorRows, tensor_of


class TrainingKMeans:
    """A run's own k-means, on the device of each worker; the arguments are those of the port's `Cluster`."""

    def __init__(self, config: KMeansConfig, device: torch.device, *, rank: int = 0, world_size: int = 1) -> None:
        self.config, self.device, self.rank, self.world_size = config, device, rank, world_size

    def __call__(
        self,
        vectors: Float[np.ndarray, "n dim"] | TensorRows,
        num_clusters: tuple[int, ...],
        *,
        nested: bool,
        seed: int,
        initial: list[np.ndarray] | None,
    ) -> Done:
        """Cluster now; every worker must call it."""
        rows = tensor_of(vectors, self.device) if isinstance(vectors, np.ndarray) else vectors
        shard = torch_shard(rows, self.config.backend)
        if self.world_size == 1:
            shards = LocalShards([shard])
            return Done(
                refresh_clusters(shards, num_clusters, self.config, nested=nested, seed=seed, initial=initial)
            )  # fmt: skip
        counts = counts_of_all(len(rows), self.device)
        if self.rank != 0:
            return Done(self._follow(shard, counts))
        group = GroupShards(shard, counts, self.device)
        try:
            found = refresh_clusters(group, num_clusters, self.config, nested=nested, seed=seed, initial=initial)
        except UserError as error:
            # Those who wait for the next request learn why there is none.
            send(Ask.FAIL, [np.empty(0, np.float32), _as_bytes(str(error))], self.device)
            raise
        return Done(self._hand_out(found, counts))

    def _hand_out(self, clusterings: list[Clustering], counts: list[int]) -> list[Clustering]:
        """Send all their ids, and the rest, which is equal on all."""
        numbers = [np.array([each.inertia, *each.history]) for each in clusterings]
        described = [part for each, n in zip(clusterings, numbers, strict=True) for part in (each.centroids, n)]
        send(Ask.END, [np.empty(0, np.float32), *described], self.device)
        edges = np.cumsum(counts)[:-1]
        return [replace(each, ids=self._own_ids(np.split(each.ids, edges), counts)) for each in clusterings]

    def _follow(self, shard: Shard, counts: list[int]) -> list[Clustering]:
        ask, arrays = answer(shard, counts, self.device)
        if ask == Ask.FAIL:
            raise UserError(bytes(arrays[0]).decode())
        return [
            Clustering(centroids, self._own_ids(None, counts), float(numbers[0]), numbers[1:].tolist())
            for centroids, numbers in zip(arrays[::2], arrays[1::2], strict=True)
        ]

    def _own_ids(self, parts: list[np.ndarray] | None, counts: list[int]) -> np.ndarray:
        return rows_from_leader(parts, counts, torch.empty(0, dtype=torch.int32, device=self.device))


def _as_bytes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode(), np.uint8)
