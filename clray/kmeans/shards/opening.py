"""Opening the shards of a clustering, here or on a Ray cluster, once their vectors have been looked through.

One pass over the vectors finds those that cannot be searched, and where the others lie, before any iteration is paid
for.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from clray.errors import UserError
from clray.kmeans.memory import BlockPlan, plan_blocks, process_bytes
from clray.kmeans.options import KMeansOptions
from clray.kmeans.origin import MAX_SQUARED_NORM, Survey, join_surveys
from clray.kmeans.shards.choice import maker_here
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import LocalShards, Shards
from clray.kmeans.vectors.source import ArraySlice, Vectors, VectorSlice

SHOWN_ROWS = 5
LOOKED_AT_FIRST_BYTES = 2**28
"""So many bytes are looked through in a second or less, before Ray is started, which takes longer."""


def open_shards(
    vectors: Vectors,
    num_clusters: Sequence[int],
    options: KMeansOptions,
    memory_bytes: int | None,
    *,
    use_ray: bool,
    verbose: bool,
) -> AbstractContextManager[tuple[Shards, Survey]]:
    """The shards of the vectors without their bad rows, and the survey that names these.

    Args:
        num_clusters: K of each set of centroids that is searched in one pass.
        memory_bytes: bound on each shard's memory while it reads files; in this process, on what is added to it.
        verbose: show the messages of Ray.

    Raises:
        UserError: rows that cannot be searched, unless they are to be left out; too little memory; too small a cluster.
    """
    if use_ray:
        return ray_shards(vectors, num_clusters, options, memory_bytes, verbose=verbose)
    return local_shards(vectors, num_clusters, options, memory_bytes)


@contextmanager
def local_shards(
    vectors: Vectors, num_clusters: Sequence[int], options: KMeansOptions, memory_bytes: int | None
) -> Iterator[tuple[Shards, Survey]]:
    """One shard in this process, with all its threads; see `open_shards`."""
    part = vectors.slice(0, len(vectors))
    plan = None
    if memory_bytes is not None and vectors.array is None:
        held = process_bytes()
        plan = plan_blocks(
            len(part),
            part.dim,
            num_clusters,
            memory_bytes=held + memory_bytes,
            process_bytes=held,
            itemsize=part.itemsize,
        )
    maker = maker_here(options.backend, gpus=options.gpus_per_shard, assign_method=options.assign_method)
    shard = maker.make(part, plan=plan)
    survey = shard.survey()
    _refuse_bad(vectors, survey.bad_rows, drop=options.drop_nonfinite)
    if len(survey.bad_rows):
        shard = maker.make(part.without(survey.bad_rows), plan=plan)
    yield LocalShards([shard]), survey


@contextmanager
def ray_shards(
    vectors: Vectors, num_clusters: Sequence[int], options: KMeansOptions, memory_bytes: int | None, *, verbose: bool
) -> Iterator[tuple[Shards, Survey]]:
    """Shards in actors, on the Ray cluster of RAY_ADDRESS or one that is started here; the actors end with the block.

    See `open_shards`.
    """
    # Ray takes seconds to import, and a search in this process needs none.
    import ray

    from clray.kmeans.shards.actors import require_gpus, shard_group, start_shard_actors
    from clray.kmeans.shards.ray_shards import RayShards
    from clray.kmeans.shards.waiting import Watch
    from clray.ray_runtime.cluster import require_room, start_ray
    from clray.ray_runtime.room import NOTHING

    if vectors.num_bytes <= LOOKED_AT_FIRST_BYTES:
        whole = FaissShard(vectors.slice(0, len(vectors)), plan=BlockPlan(is_resident=False, block_rows=8192))
        _refuse_bad(vectors, whole.survey().bad_rows, drop=options.drop_nonfinite)
    needed = shard_group(options)
    start_ray(needed_cpus=math.ceil(needed.cpus), verbose=verbose)
    require_room(NOTHING, "the clustering", beside=needed, labels=options.node_labels)
    require_gpus(options)
    actors = start_shard_actors(
        options, assign_method=options.assign_method, memory_bytes=memory_bytes, num_clusters=num_clusters
    )
    watch = Watch(actors, options)
    try:
        parts = vectors.split(options.num_shards)
        refs, sizes = _put(parts), [len(part) for part in parts]
        surveys = RayShards(actors, refs, sizes, watch=watch).survey_slices(num_clusters)
        survey = join_surveys(surveys)
        _refuse_bad(vectors, survey.bad_rows, drop=options.drop_nonfinite)
        if len(survey.bad_rows):
            left = [part.without(each.bad_rows) for part, each in zip(parts, surveys, strict=True)]
            left = [part for part in left if len(part)]
            refs, sizes = _put(left), [len(part) for part in left]
        yield RayShards(actors, refs, sizes, watch=watch), survey
    finally:
        for actor in actors:
            ray.kill(actor)


def _put(parts: Sequence[VectorSlice]) -> list[Any]:
    """What an actor is given of each slice: an array in Ray's object store, or the slice of files itself."""
    import ray

    return [ray.put(part.array) if isinstance(part, ArraySlice) else part for part in parts]


def _refuse_bad(vectors: Vectors, rows: np.ndarray, *, drop: bool) -> None:
    if not len(rows) or (drop and len(rows) < len(vectors)):
        return
    shown = "; ".join(f"{vectors.locate(row)} {_fault(vectors.row(row))}" for row in rows[:SHOWN_ROWS].tolist())
    more = f"; and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
    if len(rows) == len(vectors):
        raise UserError(f"none of the {len(vectors)} vectors can be clustered: {shown}{more}")
    raise UserError(
        f"{len(rows)} of {len(vectors)} vectors cannot be clustered: {shown}{more}. "
        "Correct them, or leave them out: drop_nonfinite"
    )


def _fault(vector: np.ndarray) -> str:
    if np.isnan(vector).any():
        return "holds NaN"
    if np.isinf(vector).any():
        return "holds infinity"
    exact = vector.astype(np.float64)
    scale = np.abs(exact).max()  # the square of a float64 may overflow
    exponent = np.log10(((exact / scale) ** 2).sum()) + 2 * np.log10(scale)
    number = f"{10 ** (exponent % 1):.1f}e+{int(exponent)}"
    return f"has a squared norm of {number}, above the bound of {MAX_SQUARED_NORM:.0e} that float32 allows"
