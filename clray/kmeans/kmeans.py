"""From opened shards to clusterings in the vectors' own coordinates: Lloyd's iterations, resampling, balance, nested
levels.

Never learns whether the shards are local or remote.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from clray.kmeans.balance import balance
from clray.kmeans.batches import centroids_of_sample
from clray.kmeans.lloyd import Clustering, Descent, Level, OnIteration, lloyd
from clray.kmeans.nested import coarsen, coarser_ids
from clray.kmeans.options import KMeansOptions
from clray.kmeans.origin import put_back, take_off
from clray.kmeans.resample import resample
from clray.kmeans.shards.together import Shards


def kmeans(
    shards: Shards,
    num_clusters: Sequence[int],
    options: KMeansOptions,
    *,
    nested: bool = False,
    initial: Sequence[np.ndarray] | None = None,
    descents: list[Descent] | None = None,
    on_iteration: OnIteration | None = None,
) -> tuple[list[Clustering], list[np.ndarray]]:
    """Cluster the vectors of the shards at one or more granularities.

    Args:
        shards: relative to an origin where the vectors lie far from zero; the centroids returned are not.
        nested: cluster the vectors into the first K only, its centroids into the second, and so on.
        initial: centroids to start from; for nested levels of the first one, or of all.
        descents: the state of an interrupted call, relative to the same origin.

    Returns:
        A clustering per granularity, and for nested ones, for each but the last, the next coarser cluster of each of
        its clusters, int32.

    Raises:
        UserError: as `lloyd`.
    """
    first = tuple(num_clusters[:1] if nested else num_clusters)
    start = None if initial is None else [take_off(each, shards.origin) for each in initial]
    given = None if start is None else start[: len(first)]
    if given is None and descents is None and options.sample_fraction < 1:
        given = centroids_of_sample(shards, first, options)
    of_all = options
    if options.sample_fraction < 1:
        of_all = options.model_copy(update={"num_iterations": options.num_refresh_iterations, "num_redos": 1})
    if of_all.num_iterations == 0 and given is not None:
        clusterings = [Clustering(each, *found) for each, found in zip(given, shards.assign(given), strict=True)]
    else:
        clusterings = lloyd(shards, first, of_all, initial=given, descents=descents, on_iteration=on_iteration)
    clusterings = [resample(shards, each, options) for each in clusterings]
    if options.balanced:
        clusterings = [balance(shards, each) for each in clusterings]
    parents: list[np.ndarray] = []
    if nested:
        above = start[1:] if start is not None and len(start) > 1 else None
        finest = clusterings[0]
        level = Level(finest.centroids, finest.sizes, finest.inertia)
        coarser, parents = coarsen(level, tuple(num_clusters[1:]), options, initial=above)
        levels_ids = coarser_ids(finest.ids, parents)
        clusterings += [each.with_ids(ids) for each, ids in zip(coarser, levels_ids, strict=True)]
    return [replace(each, centroids=put_back(each.centroids, shards.origin)) for each in clusterings], parents
