"""Nested clusters: the centroids of a level are themselves clustered into the next.

They are weighted by their sizes; with resampling they count once each, as in arXiv 2405.15613, algorithm 1. A sweep
over granularity then needs one clustering of the vectors, whatever the number of levels.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from clray.errors import UserError
from clray.kmeans.lloyd import Level, lloyd
from clray.kmeans.options import KMeansOptions
from clray.kmeans.resample import resample
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import LocalShards

MIN_REDOS = 5
"""Starts of each coarser level: it has few points, so that this costs little."""


def check_levels(levels: tuple[int, ...]) -> None:
    """Raise UserError unless there are at least two levels, from the finest to the coarsest."""
    if len(levels) < 2 or any(coarse >= fine for fine, coarse in itertools.pairwise(levels)):
        shown = ",".join(map(str, levels))
        raise UserError(
            "num_clusters: nested clusters expect two or more falling numbers of clusters such as 5000,500,50; "
            f"got {shown}"
        )


def coarsen(
    finest: Level,
    levels: tuple[int, ...],
    options: KMeansOptions,
    *,
    initial: list[np.ndarray] | None = None,
) -> tuple[list[Level], list[Int[np.ndarray, " k"]]]:
    """The coarser levels above a clustering.

    The inertia of a coarser level is that of the vectors about its centroids, by the parallel-axis theorem from the
    inertia of the level below and its centroids' own; exact where those are the means of their vectors. After
    resampling they are not, and it is off by some percent.

    Args:
        levels: K of each coarser level, falling.
        options: with `resample_steps` each level is resampled.
        initial: centroids of each coarser level to start from, so that clusters keep their ids.

    Returns:
        The levels, and for each level below the cluster of the next one that each of its clusters is in,
        int32 [K of the level below].
    """
    coarser, parents = [], []
    below = finest
    above_options = options.model_copy(update={"num_redos": max(MIN_REDOS, options.num_redos), "init": "kmeans++"})
    for number, num_clusters in enumerate(levels):
        weighted = LocalShards([FaissShard(below.centroids, weights=below.sizes.astype(np.float64))])
        points = weighted if options.resample_steps == 0 else LocalShards([FaissShard(below.centroids)])
        start = None if initial is None else [initial[number]]
        (above,) = lloyd(points, [num_clusters], above_options, initial=start)
        if options.resample_steps:
            above = resample(points, above, above_options)
            ((_, inertia),) = weighted.assign([above.centroids])
            above = replace(above, inertia=inertia)
        sizes = np.bincount(above.ids, weights=below.sizes, minlength=num_clusters).astype(np.int64)
        parents.append(above.ids)
        below = Level(above.centroids, sizes, below.inertia + above.inertia, above.history)
        coarser.append(below)
    return coarser, parents


def coarser_ids(ids: Int[np.ndarray, " n"], parents: Sequence[Int[np.ndarray, " k"]]) -> list[Int[np.ndarray, " n"]]:
    """The cluster of each vector at each coarser level, int32, from that of the finest; -1 stays -1."""
    levels = []
    for above in parents:
        ids = np.where(ids >= 0, above[ids], -1).astype(np.int32)
        levels.append(ids)
    return levels
