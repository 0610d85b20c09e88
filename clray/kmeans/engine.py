"""`clray.cluster`: k-means over any vectors, on a Ray cluster or in this process; the engine on its own.

Checks everything that can be checked before Ray starts, then opens the shards and hands them to Lloyd's iterations.
"""

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from clray.errors import UserError
from clray.folder_lock import folder_locked
from clray.kmeans.kmeans import kmeans
from clray.kmeans.lloyd import Clustering, Descent
from clray.kmeans.memory import bytes_per_shard
from clray.kmeans.nested import check_levels
from clray.kmeans.options import KMeansOptions, make_options, parse_counts
from clray.kmeans.origin import Survey, choose_origin
from clray.kmeans.output import State, check_disk, check_output, spread, write_clusterings, write_state
from clray.kmeans.progress import Progress, progress_of
from clray.kmeans.shards.faiss_shard import FAISS_VERSION
from clray.kmeans.shards.opening import open_shards
from clray.kmeans.shards.port import PartialSums
from clray.kmeans.shards.together import Shards
from clray.kmeans.vectors.source import Vectors, check_num_clusters, read_vectors, to_centroids

FINGERPRINT = ("num_iterations", "num_redos", "seed", "spherical", "tolerance", "init", "balanced", "assign_method",
               "drop_nonfinite")  # fmt: skip
"""Options that decide the result: an interrupted clustering is resumed only with the same."""
OF_SAMPLE = ("sample_fraction", "num_refresh_iterations")
"""Those that decide it where the iterations begin on a sample."""
OF_PARALLEL_START = ("oversampling",)
"""Those that decide it where k-means|| starts."""
OF_RESAMPLING = ("resample_steps", "resample_points")
"""Those that decide it where resampling follows."""


@dataclass(frozen=True)
class ClusterResult:
    """What `cluster` returns.

    Attributes:
        clusterings: one per granularity, in the order asked for.
        parents: for nested granularities, for each but the coarsest: the next coarser cluster of each of its clusters.
        nonfinite_rows: vectors that were left out; their ids are -1.
        summary: what clustering.json holds.
    """

    clusterings: list[Clustering]
    parents: list[np.ndarray]
    nonfinite_rows: np.ndarray
    summary: dict[str, Any]

    @property
    def centroids(self) -> np.ndarray:
        """Of the first granularity, float32 [K, dim]; float64 where float64 vectors lie far from the origin."""
        return self.clusterings[0].centroids

    @property
    def ids(self) -> np.ndarray:
        """Of the first granularity, int32 [N]."""
        return self.clusterings[0].ids

    @property
    def inertia(self) -> float:
        """Of the first granularity."""
        return self.clusterings[0].inertia


def cluster(
    vectors: Any,
    num_clusters: int | Sequence[int],
    *,
    nested: bool = False,
    column: str | None = None,
    use_ray: bool = True,
    initial: Sequence[np.ndarray] | np.ndarray | None = None,
    output: Path | str | None = None,
    resume: bool = False,
    write_table: bool = False,
    on_iteration: Callable[[Progress], None] | None = None,
    verbose: bool = False,
    **settings: Any,
) -> ClusterResult:
    """K-means by Lloyd's algorithm on every vector, with FAISS inside.

    Example:
        result = clray.cluster("vectors.npy", 1000, num_iterations=50, seed=1, use_ray=False)

    Args:
        vectors: array or tensor [N, dim]; or the path of a `.npy` or Parquet file, or of a folder of them.
        num_clusters: K, or several, which then go through each pass together.
        nested: cluster the vectors into the first K only, its centroids into the second, and so on.
        column: Parquet column; by default the only one that holds vectors.
        use_ray: False searches in this process, with all its threads.
        initial: centroids to start from, for each granularity.
        output: folder for results and, while it runs, the state from which `resume` continues; locked meanwhile.
        write_table: also write assignments.parquet, with file and row of each vector.
        on_iteration: called after each iteration.
        settings: any field of `clray.kmeans.options.KMeansOptions`, by its name.

    Raises:
        UserError: vectors that cannot be used, impossible numbers, too little memory or disk, an output in use.
    """
    options = make_options(**settings)
    wanted = parse_counts(num_clusters)
    opened = read_vectors(vectors, column)
    check_num_clusters(wanted, len(opened))
    if nested:
        check_levels(wanted)
    passes = wanted[:1] if nested else wanted
    start = _check_initial(initial, passes, opened.dim)
    memory_bytes = bytes_per_shard(options.memory_per_shard, options.num_shards if use_ray else 1)
    about: dict[str, Any] = _describe(opened, wanted, options) | {"nested": nested}
    if resume and output is None:
        raise UserError("resume: name the output folder of the interrupted clustering")
    folder = None if output is None else Path(output)
    with nullcontext() if folder is None else folder_locked(folder):
        state = None
        if folder is not None:
            state = check_output(folder, resume=resume, fingerprint=about)
            check_disk(folder, len(opened), wanted, options.num_redos, opened.dim)
        starts = [k for k in passes for _ in range(_num_starts(options, start))]
        with open_shards(opened, starts, options, memory_bytes, use_ray=use_ray, verbose=verbose) as (shards, survey):
            check_num_clusters(passes, shards.num_vectors)
            run = _Run(options, folder, about, _origin(state, survey, opened, options), on_iteration)
            clusterings, parents = kmeans(
                shards.about(run.origin),
                wanted,
                options,
                nested=nested,
                initial=start,
                descents=None if state is None else state.descents,
                on_iteration=run.on_iteration,
            )
        clusterings = [replace(each, ids=spread(each.ids, survey.bad_rows, -1)) for each in clusterings]
        about |= run.measured() | {
            "num_shards": options.num_shards if use_ray else 1,
            "memory_per_shard_bytes": memory_bytes,
            "num_nonfinite": len(survey.bad_rows),
            "versions": {name: version(name) for name in ("clray", "numpy", "ray")} | {"faiss": FAISS_VERSION},
        }
        if folder is not None:
            table_of = opened if write_table else None
            about = write_clusterings(folder, clusterings, about, parents=parents, table_of=table_of)
    return ClusterResult(clusterings, parents, survey.bad_rows, about)


def _num_starts(options: KMeansOptions, initial: list[np.ndarray] | None) -> int:
    """Sets of centroids of each granularity that go through the vectors together; on a sample, that is in memory."""
    return options.num_redos if initial is None and options.sample_fraction == 1 else 1


class _Run:
    """What happens beside the iterations: the state is written, the caller hears, time and bytes are measured."""

    def __init__(
        self,
        options: KMeansOptions,
        folder: Path | None,
        about: dict[str, Any],
        origin: np.ndarray | None,
        listener: Callable[[Progress], None] | None,
    ) -> None:
        self.options, self.folder, self.about, self.origin = options, folder, about, origin
        self.listener = listener
        self.started = time.monotonic()
        self.progress: Progress | None = None

    def on_iteration(self, shards: Shards, descents: list[Descent], sums: list[PartialSums]) -> None:
        if self.folder is not None:
            write_state(self.folder, State(descents, self.origin), self.about)
        seconds = time.monotonic() - self.started
        is_sampled = self.options.sample_fraction < 1
        most = self.options.num_refresh_iterations if is_sampled else self.options.num_iterations
        self.progress = progress_of(descents, sums, most, shards, seconds)
        if self.listener is not None:
            self.listener(self.progress)

    def measured(self) -> dict[str, Any]:
        return {
            "seconds": round(time.monotonic() - self.started, 3),
            "bytes_to_each_shard_per_iteration": self.progress.received_bytes if self.progress else 0,
            "bytes_from_each_shard_per_iteration": self.progress.sent_bytes if self.progress else 0,
        }


def _origin(state: State | None, survey: Survey, vectors: Vectors, options: KMeansOptions) -> np.ndarray | None:
    """That of the interrupted clustering, whose centroids are relative to it; unit centroids are about zero."""
    if state is not None:
        return state.origin
    return None if options.spherical else choose_origin(survey, vectors.dtype)


def _check_initial(
    initial: Sequence[np.ndarray] | np.ndarray | None, num_clusters: tuple[int, ...], dim: int
) -> list[np.ndarray] | None:
    if initial is None:
        return None
    several = isinstance(initial, list | tuple) and all(np.ndim(each) == 2 for each in initial)
    given = [to_centroids(each, "initial") for each in (initial if several else [initial])]
    shapes, expected = [each.shape for each in given], [(k, dim) for k in num_clusters]
    if shapes != expected:
        raise UserError(f"initial: expected centroids of shapes {expected}; got {shapes}")
    return given


def _describe(vectors: Vectors, num_clusters: tuple[int, ...], options: KMeansOptions) -> dict[str, Any]:
    """What was asked for, as JSON; equal for the same vectors and options."""
    further: tuple[str, ...] = OF_SAMPLE if options.sample_fraction < 1 else ()
    further += OF_PARALLEL_START if options.init == "kmeans-parallel" else ()
    further += OF_RESAMPLING if options.resample_steps > 0 else ()
    return {
        "vectors": vectors.source,
        "vectors_stamp": vectors.stamp(),
        "num_vectors": len(vectors),
        "dim": vectors.dim,
        "num_clusters": list(num_clusters),
        **options.model_dump(include={*FINGERPRINT, *further}),
    }
