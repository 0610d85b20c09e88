"""Opening the shards of a clustering, here or on a Ray cluster, once their vectors have been looked through.

One pass over the vectors finds those with NaN or infinity before any iteration is paid for.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from clray.config.sections import KMeansConfig
from clray.errors import UserError
from clray.kmeans.lloyd import LocalShards, Shards
from clray.kmeans.memory import plan_blocks, process_bytes
from clray.kmeans.shards.faiss_shard import AssignMethod, FaissShard
from clray.kmeans.vectors.source import ArraySlice, Vectors

SHOWN_ROWS = 5


@contextmanager
def local_shards(
    vectors: Vectors, num_clusters: Sequence[int], method: AssignMethod, memory_bytes: int | None, drop: bool
) -> Iterator[tuple[Shards, np.ndarray]]:
    """One shard in this process, with all its threads, and the rows that were left out.

    Args:
        num_clusters: K of each set of centroids that is searched in one pass.
        memory_bytes: bound on the memory that reading and searching add to the process.
        drop: leave out rows with NaN or infinity.

    Raises:
        UserError: such rows, without `drop`, or too little memory.
    """
    part = vectors.slice(0, len(vectors))
    plan = None
    if memory_bytes is not None and vectors.array is None:
        held = process_bytes()
        plan = plan_blocks(len(part), part.dim, num_clusters, memory_bytes=held + memory_bytes, process_bytes=held)
    shard = FaissShard(part, plan=plan, assign_method=method)
    nonfinite = shard.nonfinite_rows()
    _refuse_nonfinite(vectors, nonfinite, drop)
    if len(nonfinite):
        kept = ArraySlice(np.delete(vectors.array, nonfinite, axis=0)) if vectors.array is not None else None
        shard = FaissShard(kept or part.without(nonfinite), plan=plan, assign_method=method)
    yield LocalShards([shard]), nonfinite


@contextmanager
def ray_shards(
    vectors: Vectors,
    num_clusters: Sequence[int],
    config: KMeansConfig,
    method: AssignMethod,
    memory_bytes: int | None,
    drop: bool,
    verbose: bool,
) -> Iterator[tuple[Shards, np.ndarray]]:
    """Shards in actors, on the Ray cluster of RAY_ADDRESS or one that is started here; the actors end with the block.

    Args and raises as `local_shards`; also UserError where the cluster is too small.
    """
    # Ray takes seconds to import, and a search in this process needs none.
    import ray

    from clray.kmeans.shards.actors import RayShards, shard_resources, start_shard_actors
    from clray.ray_runtime.cluster import require_resources, start_ray

    needed = shard_resources(config)
    start_ray(needed_cpus=math.ceil(needed["CPU"]), verbose=verbose)
    require_resources(needed, f"{config.num_shards} k-means shards")
    actors = start_shard_actors(config, assign_method=method, memory_bytes=memory_bytes)
    try:
        parts = vectors.split(config.num_shards)
        refs = [ray.put(part.array) if isinstance(part, ArraySlice) else part for part in parts]
        sizes = [len(part) for part in parts]
        bad = RayShards(actors, refs, sizes).nonfinite_rows(num_clusters)
        starts = np.cumsum([0, *sizes])
        nonfinite = np.concatenate([rows + start for rows, start in zip(bad, starts[:-1], strict=True)])
        _refuse_nonfinite(vectors, nonfinite, drop)
        if len(nonfinite):
            kept = [
                ray.put(np.delete(part.array, rows, axis=0)) if isinstance(part, ArraySlice) else part.without(rows)
                for part, rows in zip(parts, bad, strict=True)
            ]
            # A slice of which nothing is left has nothing to search.
            left = [(ref, size - len(rows)) for ref, size, rows in zip(kept, sizes, bad, strict=True)]
            refs = [ref for ref, size in left if size]
            sizes = [size for _, size in left if size]
        yield RayShards(actors, refs, sizes), nonfinite
    finally:
        for actor in actors:
            ray.kill(actor)


def _refuse_nonfinite(vectors: Vectors, rows: np.ndarray, drop: bool) -> None:
    if len(rows) == len(vectors):
        raise UserError(f"{vectors.source}: every vector holds NaN or infinity")
    if len(rows) and not drop:
        shown = "; ".join(vectors.locate(int(row)) for row in rows[:SHOWN_ROWS])
        more = f" and {len(rows) - SHOWN_ROWS} more" if len(rows) > SHOWN_ROWS else ""
        raise UserError(f"NaN or infinity in {shown}{more}. Correct them, or go on without them: --drop-nonfinite")
