"""The `Shards` of Lloyd's algorithm over actors: who is asked for what, and what of it crosses the network."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from jaxtyping import Float, Int

from clray.config.sections import KMeansConfig
from clray.kmeans.closest import join_closest
from clray.kmeans.origin import Survey, join_surveys
from clray.kmeans.shards.placement import crossing
from clray.kmeans.shards.port import Measured, PartialSums, Placed
from clray.kmeans.shards.reaching import until_reached
from clray.kmeans.shards.together import add_sums, join_assignments, join_measured, join_rows, rows_by_slice
from clray.kmeans.shards.waiting import Watch
from clray.kmeans.vectors.source import split_rows

FAN_IN = 8
"""Partial sums that one process adds; above it they are reduced in a tree."""
IDS = "cluster ids"


@dataclass
class Traffic:
    """Bytes between nodes so far, without those of the vectors on their way to the shards."""

    num_bytes: int = 0


class RayShards:
    """The `Shards` of Lloyd's algorithm over actors; slice i is searched by actor i modulo their number."""

    def __init__(
        self,
        actors: Sequence[Any],
        slices: Sequence[Any],
        sizes: Sequence[int],
        *,
        nodes: Sequence[str] | None = None,
        home: str = "",
        fan_in: int = FAN_IN,
        watch: Watch | None = None,
    ) -> None:
        """Give each slice its actor.

        Args:
            actors: the shards.
            slices: an object reference or `FileSlice` per slice.
            sizes: the number of vectors in each slice.
            nodes: the node of each slice's actor, where what crosses the network is to be counted.
            home: the node of this process.
            fan_in: partial sums that one process adds.
            watch: over all shards; by default over these, as a config without settings says.
        """
        self.watch = watch or Watch(actors, KMeansConfig())
        self.actors = [actors[i % len(actors)] for i in range(len(slices))]
        self.slices = slices
        self.keys = [each.hex() if isinstance(each, ray.ObjectRef) else "" for each in slices]
        """Of arrays in the object store: the same key, the same vectors."""
        self.nodes, self.home = list(nodes) if nodes is not None else [home] * len(slices), home
        self.fan_in = fan_in
        self.origin: np.ndarray | None = None
        self.received_bytes = 0
        """Bytes of centroids that each shard received in the last iteration; K x dim, whatever the vectors."""
        self.sent_bytes = 0
        """Bytes of sums and counts that each shard sent in the last iteration."""
        self.traffic = Traffic()
        """One for these shards and those about another origin."""
        self._starts = np.cumsum([0, *sizes])

    @property
    def num_vectors(self) -> int:
        return int(self._starts[-1])

    def about(self, origin: np.ndarray | None) -> "RayShards":
        moved = copy.copy(self)
        moved.origin = origin
        return moved

    def holding(self, vectors: np.ndarray, *, once: bool = False) -> "RayShards":
        bounds = split_rows(len(vectors), len(self.slices))
        slices = [ray.put(vectors[start:stop]) for start, stop in bounds]
        sizes, count = [stop - start for start, stop in bounds], len(bounds)
        held = RayShards(
            self.actors[:count], slices, sizes, nodes=self.nodes[:count], home=self.home, watch=self.watch
        )  # fmt: skip
        if once:
            held.keys = [""] * count
        return held

    def survey(self, num_clusters: Sequence[int]) -> Survey:
        return join_surveys(self.survey_slices(num_clusters))

    def survey_slices(self, num_clusters: Sequence[int]) -> list[Survey]:
        """What one pass over each slice finds; raises UserError where a shard's memory is too small."""
        return self._on_all(lambda actor, key, vectors: actor.survey.remote(key, vectors, num_clusters), "a first pass")

    def take(self, rows: Int[np.ndarray, " m"]) -> Float[np.ndarray, "m dim"]:
        parts = rows_by_slice(rows, self._starts)
        taken = self._reached(
            lambda: [
                a.take.remote(v, self.origin, part) for a, v, part in zip(self.actors, self.slices, parts, strict=True)
            ],
            "some of the vectors",
        )
        self._count(each.nbytes for each in taken)
        return np.concatenate(taken)

    def approach(self, candidates: np.ndarray, before: list[Any] | None) -> tuple[list[Any], float, np.ndarray]:
        shared, former = ray.put(candidates), before or [None] * len(self.slices)
        nearest: list[Any] = []

        def start() -> list[Any]:
            pairs = [
                a.approach.options(num_returns=2).remote(key, v, self.origin, shared, each)
                for a, key, v, each in zip(self.actors, self.keys, self.slices, former, strict=True)
            ]
            nearest[:] = [kept for kept, _ in pairs]
            return [found for _, found in pairs]

        found = self._reached(start, "the nearest candidates")
        self.traffic.num_bytes += self._num_away_nodes * candidates.nbytes
        self._count(weights.nbytes for _, weights in found)
        return nearest, sum(each for each, _ in found), np.sum([weights for _, weights in found], axis=0)

    def draw(self, nearest: list[Any], rate: float, key: np.ndarray) -> Int[np.ndarray, " m"]:
        firsts = self._starts[:-1].tolist()
        drawn = self._reached(
            lambda: [
                a.draw.remote(each, first, rate, key)
                for a, each, first in zip(self.actors, nearest, firsts, strict=True)
            ],
            "candidates",
        )
        self._count(each.nbytes for each in drawn)
        return join_rows(drawn, firsts)

    def accumulate(self, centroids: Sequence[np.ndarray]) -> list[PartialSums]:
        shared = ray.put(list(centroids))

        def start() -> list[Any]:
            partial = [
                a.accumulate.remote(key, v, self.origin, shared)
                for a, key, v in zip(self.actors, self.keys, self.slices, strict=True)
            ]
            while len(partial) > self.fan_in:
                groups = range(0, len(partial), self.fan_in)
                partial = [self.actors[self._adder(i)].add.remote(*partial[i : i + self.fan_in]) for i in groups]
            return partial

        sums = add_sums(self._reached(start, "the sums of an iteration"))
        self.received_bytes = sum(each.nbytes for each in centroids)
        self.sent_bytes = sum(each.num_bytes for each in sums)
        self.traffic.num_bytes += self._num_away_nodes * self.received_bytes + self._num_away_sums * self.sent_bytes
        return sums

    def assign(self, centroids: Sequence[np.ndarray]) -> list[tuple[np.ndarray, float]]:
        shared = ray.put(list(centroids))
        parts = self._on_all(lambda actor, key, vectors: actor.assign.remote(key, vectors, self.origin, shared), IDS)
        self.traffic.num_bytes += self._num_away_nodes * sum(each.nbytes for each in centroids)
        self._count(sum(ids.nbytes for ids, _ in part) for part in parts)
        return join_assignments(parts)

    def place(self, centroids: Sequence[np.ndarray]) -> list[Placed]:
        """Their ids are a list of object references, one for each slice."""
        shared = ray.put(list(centroids))
        parts = self._on_all(lambda actor, key, vectors: actor.place.remote(key, vectors, self.origin, shared), IDS)
        self.traffic.num_bytes += self._num_away_nodes * sum(each.nbytes for each in centroids)
        self._count(sum(each.sizes.nbytes for each in part) for part in parts)
        return [
            Placed(
                [part.ids for part in each],
                np.sum([part.sizes for part in each], axis=0),
                float(sum(part.inertia for part in each)),
            )
            for each in zip(*parts, strict=True)
        ]

    def measure(self, centroids: Sequence[np.ndarray]) -> Measured:
        shared = ray.put(list(centroids))
        return join_measured(
            self._on_all(lambda actor, key, vectors: actor.measure.remote(key, vectors, self.origin, shared), IDS)
        )

    def closest(self, centroids: np.ndarray, most: int) -> np.ndarray:
        shared = ray.put([centroids])
        parts = self._on_all(
            lambda actor, key, vectors: actor.closest.remote(key, vectors, self.origin, shared, most), "members"
        )
        return join_closest(parts, self._starts[:-1].tolist(), len(centroids), most).rows

    @property
    def _num_away_nodes(self) -> int:
        """Nodes that fetch what this process shares: once each, for all their actors."""
        return len(set(self.nodes) - {self.home})

    @property
    def _num_away_sums(self) -> int:
        """Partial sums that cross the network on their way up the tree to this process, in each iteration."""
        nodes, crossed = self.nodes, 0
        while len(nodes) > self.fan_in:
            groups = range(0, len(nodes), self.fan_in)
            adders = [self.nodes[self._adder(i)] for i in groups]
            crossed += sum(map(crossing, (nodes[i : i + self.fan_in] for i in groups), adders))
            nodes = adders
        return crossed + crossing(nodes, self.home)

    def _adder(self, first: int) -> int:
        """The actor that adds the group of partial sums from `first` on.

        Another place in each group: Ray deals actors out to the nodes in turn, and the first ones of groups of 8 would
        all lie on one of 8 nodes.
        """
        return min(first + first // self.fan_in % self.fan_in, len(self.actors) - 1)

    def _count(self, num_bytes: Iterable[int]) -> None:
        """Add what each slice's actor sends to this process."""
        away = (each for each, node in zip(num_bytes, self.nodes, strict=True) if node != self.home)
        self.traffic.num_bytes += sum(away)

    def _on_all(self, call: Callable[[Any, str, Any], Any], purpose: str) -> list[Any]:
        """What the call returns for each slice."""
        calls = list(zip(self.actors, self.keys, self.slices, strict=True))
        return self._reached(lambda: [call(*each) for each in calls], purpose)

    def _reached(self, start: Callable[[], list[Any]], purpose: str) -> list[Any]:
        return until_reached(start, self.watch, purpose)
