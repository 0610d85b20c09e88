"""How far a clustering is, for bars and logs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from clray.kmeans.lloyd import Descent
from clray.kmeans.shards.port import PartialSums
from clray.kmeans.shards.together import Shards


@dataclass(frozen=True)
class Progress:
    """How far a clustering is.

    Attributes:
        iteration: updates done, from 1.
        num_iterations: updates at most.
        inertia, imbalance: of each granularity that is still under way, the best start of each.
        received_bytes, sent_bytes: what each Ray shard received and sent in this iteration.
        seconds: since the first iteration began.
    """

    iteration: int
    num_iterations: int
    inertia: dict[int, float]
    imbalance: dict[int, float]
    received_bytes: int
    sent_bytes: int
    seconds: float


def progress_of(
    descents: Sequence[Descent], sums: Sequence[PartialSums], num_iterations: int, shards: Shards, seconds: float
) -> Progress:
    """The progress after an update; `sums` are those of the descents that took part in it."""
    iteration = max(len(each.history) for each in descents)
    moved = [each for each in descents if len(each.history) == iteration]
    inertia: dict[int, float] = {}
    imbalance: dict[int, float] = {}
    for descent, each in zip(moved, sums, strict=True):
        if each.inertia <= inertia.get(descent.num_clusters, math.inf):
            inertia[descent.num_clusters], imbalance[descent.num_clusters] = each.inertia, each.imbalance
    return Progress(
        iteration=iteration,
        num_iterations=num_iterations,
        inertia=inertia,
        imbalance=imbalance,
        received_bytes=getattr(shards, "received_bytes", 0),
        sent_bytes=getattr(shards, "sent_bytes", 0),
        seconds=seconds,
    )
