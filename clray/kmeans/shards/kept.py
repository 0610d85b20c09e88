"""The shards that an actor's process keeps from one call to the next. Knows no Ray."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from clray.config.sections import KMeansConfig
from clray.kmeans.memory import BlockPlan, plan_blocks, process_bytes
from clray.kmeans.options import AssignMethod
from clray.kmeans.shards.choice import ShardMaker, maker_of_actor
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.port import Shard
from clray.kmeans.vectors.source import FileSlice


class KeptShards:
    """Opens the shard of a slice: of files the last one is kept, of arrays those that were copied to a GPU."""

    def __init__(
        self,
        config: KMeansConfig,
        assign_method: AssignMethod,
        memory_bytes: int | None,
        *,
        num_clusters: Sequence[int] = (),
        deterministic: bool = False,
    ) -> None:
        """Give what all shards share.

        Args:
            memory_bytes: bounds the process's own memory while it reads files; None keeps them in memory.
            num_clusters: K of each set of centroids of the clustering, by which memory is planned whatever call comes
                first: k-means|| asks for one candidate, then for many, and a restarted actor hears of either first.
                By default those of the call.
            deterministic: search in such a way alone as gives the same each time.
        """
        self.config, self.assign_method, self.memory_bytes = config, assign_method, memory_bytes
        self.num_clusters, self.deterministic = num_clusters, deterministic
        self.process_bytes = process_bytes()
        self.kept: OrderedDict[str, Shard] = OrderedDict()

    @cached_property
    def maker(self) -> ShardMaker:
        """Made by the first call, not by an actor's constructor: what it raises then reaches the caller."""
        config, num_threads = self.config, max(1, int(self.config.cpus_per_shard))
        return maker_of_actor(
            config.backend,
            gpus=config.gpus_per_shard,
            num_threads=num_threads,
            assign_method=self.assign_method,
            deterministic=self.deterministic,
        )

    def open(self, key: str, vectors: FileSlice | np.ndarray, num_clusters: Sequence[int]) -> Shard:
        """The shard of these vectors.

        Args:
            key: of an array: the same key, the same vectors.
            num_clusters: K of each set of centroids that is searched in one pass.

        Raises:
            UserError: too little memory, or a GPU that nothing sees.
        """
        if isinstance(vectors, FileSlice):
            key = str(vectors.key)
        if key in self.kept:
            return self.kept[key]
        while self.kept and (isinstance(vectors, FileSlice) or not self.maker.fits(vectors)):
            self.kept.popitem(last=False)
        shard = self.maker.make(vectors, plan=self._plan(vectors, num_clusters))
        if isinstance(vectors, FileSlice) or (key and not isinstance(shard, FaissShard)):
            self.kept[key] = shard
        return shard

    def last(self, key: str, vectors: FileSlice | np.ndarray, num_clusters: Sequence[int]) -> Shard:
        """As `open`, for the last call of a clustering: the copy of an array is given up."""
        shard = self.open(key, vectors, num_clusters)
        if not isinstance(vectors, FileSlice):
            self.kept.pop(key, None)
        return shard

    def _plan(self, vectors: FileSlice | np.ndarray, num_clusters: Sequence[int]) -> BlockPlan | None:
        if self.memory_bytes is None or isinstance(vectors, np.ndarray):
            return None
        return plan_blocks(
            len(vectors),
            vectors.dim,
            self.num_clusters or num_clusters,
            memory_bytes=self.memory_bytes,
            process_bytes=self.process_bytes,
            itemsize=vectors.itemsize,
            on_gpu=self.config.gpus_per_shard > 0,
        )
