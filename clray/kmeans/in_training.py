"""k-means where a run trains: each worker searches its own vectors on its own device, without Ray's shards."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from clray.config.sections import KMeansConfig
from clray.kmeans.failures import HeardByAllError, as_arrays, computed_by_all, described, from_arrays
from clray.kmeans.group_shards import Ask, GroupShards, answer
from clray.kmeans.lloyd import Clustering
from clray.kmeans.messages import counts_of_all, rows_from_leader, send
from clray.kmeans.refresh import Done, refresh_clusters
from clray.kmeans.shards.choice import torch_shard
from clray.kmeans.shards.port import Shard
from clray.kmeans.shards.together import LocalShards
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
        """Cluster now; every worker must call it.

        Raises:
            UserError: embeddings that cannot be clustered, on all workers alike.
            TrainingError: another worker failed; that one raises what happened to it.
        """
        if self.world_size == 1:
            shards = LocalShards([self._shard(vectors)])
            alone = refresh_clusters(shards, num_clusters, self.config, nested=nested, seed=seed, initial=initial)
            return Done(alone.clusterings(alone.ids))
        try:
            shard = computed_by_all(lambda: self._shard(vectors), self.device)
            counts = counts_of_all(len(vectors), self.device)
            if self.rank != 0:
                return Done(self._follow(shard, counts))
            with self._failure_told():
                group = GroupShards(shard, counts, self.device)
                found = refresh_clusters(
                    group, num_clusters, self.config, nested=nested, seed=seed, initial=initial
                )  # fmt: skip
            return Done(self._hand_out(found.clusterings(found.ids), counts))
        except HeardByAllError as heard:
            raise heard.error from heard.error.__cause__

    def _shard(self, vectors: np.ndarray | TensorRows) -> Shard:
        rows = tensor_of(vectors, self.device) if isinstance(vectors, np.ndarray) else vectors
        return torch_shard(rows, self.config.backend)

    @contextmanager
    def _failure_told(self) -> Iterator[None]:
        """On worker 0: those who wait for its next request learn why there is none."""
        try:
            yield
        except HeardByAllError:
            raise
        except Exception as error:
            with suppress(RuntimeError):  # where the group itself is what failed
                send(Ask.FAIL, [np.empty(0, np.float32), *as_arrays(*described(error))], self.device)
            raise

    def _hand_out(self, clusterings: list[Clustering], counts: list[int]) -> list[Clustering]:
        """Send all their ids, and the rest, which is equal on all."""
        numbers = [np.array([each.inertia, *each.history]) for each in clusterings]
        shared = [part for each, n in zip(clusterings, numbers, strict=True) for part in (each.centroids, n)]
        send(Ask.END, [np.empty(0, np.float32), *shared], self.device)
        edges = np.cumsum(counts)[:-1]
        return [replace(each, ids=self._own_ids(np.split(each.ids, edges), counts)) for each in clusterings]

    def _follow(self, shard: Shard, counts: list[int]) -> list[Clustering]:
        ask, arrays = answer(shard, counts, self.device)
        if ask == Ask.FAIL:
            raise from_arrays(arrays)
        return [
            Clustering(centroids, self._own_ids(None, counts), float(numbers[0]), numbers[1:].tolist())
            for centroids, numbers in zip(arrays[::2], arrays[1::2], strict=True)
        ]

    def _own_ids(self, parts: list[np.ndarray] | None, counts: list[int]) -> np.ndarray:
        return rows_from_leader(parts, counts, torch.empty(0, dtype=torch.int32, device=self.device))
