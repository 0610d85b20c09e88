"""`clray.cluster`: k-means over any vectors, on a Ray cluster or in this process; the engine on its own.

Checks everything that can be checked before Ray starts, then opens the shards and hands them to Lloyd's iterations.
"""

import functools
import math
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np

from clray.config.sections import KMeansConfig
from clray.errors import UserError
from clray.folder_lock import folder_locked
from clray.kmeans.balance import balance
from clray.kmeans.lloyd import Clustering, Descent, LloydOptions, Shards, lloyd
from clray.kmeans.memory import available_bytes, format_bytes, parse_bytes
from clray.kmeans.nested import check_levels, coarsen
from clray.kmeans.output import check_disk, check_output, read_state, write_clusterings, write_state
from clray.kmeans.shards.faiss_shard import FAISS_VERSION, AssignMethod, InitMethod
from clray.kmeans.shards.opening import local_shards, ray_shards
from clray.kmeans.vectors.source import Vectors, as_vectors, check_num_clusters, open_vectors

P = ParamSpec("P")


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
        """Of the first granularity, float32 [K, dim]."""
        return self.clusterings[0].centroids

    @property
    def ids(self) -> np.ndarray:
        """Of the first granularity, int32 [N]."""
        return self.clusterings[0].ids

    @property
    def inertia(self) -> float:
        """Of the first granularity."""
        return self.clusterings[0].inertia


def _holding_output(run: Callable[P, ClusterResult]) -> Callable[P, ClusterResult]:
    """`run`, with its output folder locked from the first check to the last file."""

    @functools.wraps(run)
    def holding(*args: P.args, **kwargs: P.kwargs) -> ClusterResult:
        output = kwargs.get("output")
        if output is None:
            return run(*args, **kwargs)
        with folder_locked(Path(str(output))):
            return run(*args, **kwargs)

    return holding


@_holding_output
def cluster(
    vectors: Any,
    num_clusters: int | Sequence[int],
    *,
    nested: bool = False,
    balanced: bool = False,
    column: str | None = None,
    num_shards: int = 2,
    cpus_per_shard: float = 1.0,
    gpus_per_shard: float = 0.0,
    memory_per_shard: int | str | None = None,
    use_ray: bool = True,
    num_iterations: int = 20,
    num_redos: int = 1,
    init: InitMethod = "random",
    initial: Sequence[np.ndarray] | np.ndarray | None = None,
    assign_method: AssignMethod = "exact",
    spherical: bool = False,
    tolerance: float = 1e-6,
    seed: int = 0,
    drop_nonfinite: bool = False,
    output: Path | str | None = None,
    resume: bool = False,
    write_table: bool = False,
    on_iteration: Callable[[Progress], None] | None = None,
    verbose: bool = False,
) -> ClusterResult:
    """K-means by Lloyd's algorithm on every vector, with FAISS inside.

    Args:
        vectors: array or tensor [N, dim]; or the path of a `.npy` or Parquet file, or of a folder of them.
        num_clusters: K, or several, which then go through each pass together.
        nested: cluster the vectors into the first K only, its centroids into the second, and so on.
        balanced: give ids that make clusters of more even size (the centroids stay).
        column: Parquet column; by default the only one that holds vectors.
        num_shards: Ray actors, each with a slice of the vectors.
        memory_per_shard: bound on a shard's own memory in bytes, or such as "300MB"; by default half of what is free
            here, divided by the shards. Slices of files that do not fit are read anew in every iteration.
        use_ray: False searches in this process, with all its threads.
        initial: centroids to start from, for each granularity.
        init, assign_method: see `LloydOptions` and `FaissShard`; `ivf` and `hnsw` approximate for very large K.
        tolerance: relative fall of the inertia at which to stop; 0 goes on until it does not fall.
        drop_nonfinite: leave out vectors with NaN or infinity instead of refusing them.
        output: folder for results and, while it runs, the state from which `resume` goes on.
        write_table: also write assignments.parquet, with file and row of each vector.
        on_iteration: called after each iteration.

    Raises:
        UserError: vectors that cannot be used, impossible numbers, too little memory or disk, an output in use.
    """
    opened = _open(vectors, column)
    wanted = (num_clusters,) if isinstance(num_clusters, int) else tuple(num_clusters)
    options = LloydOptions(num_iterations, num_redos, seed, spherical, float(tolerance), init)
    _check(opened, wanted, options, nested=nested)
    passes = wanted[:1] if nested else wanted
    start = _check_initial(initial, passes, opened.dim)
    memory_bytes = _check_memory(memory_per_shard, num_shards if use_ray else 1)
    about = _describe(opened, wanted, options) | {
        "nested": nested,
        "balanced": balanced,
        "assign_method": assign_method,
        "drop_nonfinite": drop_nonfinite,
    }
    folder = None if output is None else Path(output)
    descents: list[Descent] | None = None
    if folder is not None:
        check_output(folder, resume=resume, fingerprint=about)
        check_disk(folder, len(opened), wanted, num_redos, opened.dim)
        descents = read_state(folder) if resume else None
    elif resume:
        raise UserError("resume: name the output folder of the interrupted clustering")

    if not use_ray:
        opening = local_shards(opened, passes, assign_method, memory_bytes, drop_nonfinite)
    else:
        config = KMeansConfig(num_shards=num_shards, cpus_per_shard=cpus_per_shard, gpus_per_shard=gpus_per_shard)
        opening = ray_shards(opened, passes, config, assign_method, memory_bytes, drop_nonfinite, verbose)
    with opening as (shards, nonfinite):
        check_num_clusters(passes, shards.num_vectors)
        started = time.monotonic()
        num_bytes = {}

        def on_update(moved: list[Descent], sums: list[Any]) -> None:
            if folder is not None:
                write_state(folder, moved, about)
            progress = _progress(moved, sums, options, shards, time.monotonic() - started)
            num_bytes.update(received=progress.received_bytes, sent=progress.sent_bytes)
            if on_iteration is not None:
                on_iteration(progress)

        clusterings = lloyd(shards, passes, options, initial=start, descents=descents, on_iteration=on_update)
        if balanced:
            clusterings = [balance(shards, each) for each in clusterings]
        seconds = time.monotonic() - started
    clusterings = [replace(each, ids=_spread_ids(each.ids, nonfinite)) for each in clusterings]
    parents: list[np.ndarray] = []
    if nested:
        coarser, parents = coarsen(clusterings[0], wanted[1:], options)
        clusterings += coarser
    about |= {
        "num_shards": num_shards if use_ray else 1,
        "memory_per_shard_bytes": memory_bytes,
        "seconds": round(seconds, 3),
        "num_nonfinite": len(nonfinite),
        "bytes_to_each_shard_per_iteration": num_bytes.get("received", 0),
        "bytes_from_each_shard_per_iteration": num_bytes.get("sent", 0),
        "versions": {name: version(name) for name in ("clray", "numpy", "ray")} | {"faiss": FAISS_VERSION},
    }
    if folder is not None:
        about = write_clusterings(folder, clusterings, about, parents=parents, table_of=opened if write_table else None)
    return ClusterResult(clusterings, parents, nonfinite, about)


def _open(vectors: Any, column: str | None) -> Vectors:
    if isinstance(vectors, str | Path):
        return open_vectors(Path(vectors), column)
    if hasattr(vectors, "detach"):  # a torch tensor; NumPy has no bfloat16
        vectors = vectors.detach().cpu()
        vectors = (vectors.float() if "bfloat16" in str(vectors.dtype) else vectors).numpy()
    return as_vectors(np.asarray(vectors))


def _check(vectors: Vectors, num_clusters: tuple[int, ...], options: LloydOptions, *, nested: bool) -> None:
    if not num_clusters:
        raise UserError("num_clusters: expected at least one number; got none")
    check_num_clusters(num_clusters, len(vectors))
    if len(set(num_clusters)) < len(num_clusters):
        raise UserError(f"num_clusters: each may occur once; got {', '.join(map(str, num_clusters))}")
    if nested:
        check_levels(num_clusters)
    for name in ("num_iterations", "num_redos"):
        if getattr(options, name) < 1:
            raise UserError(f"{name} must be at least 1; got {getattr(options, name)}")
    if not options.tolerance >= 0:
        raise UserError(f"tolerance must be at least 0; got {options.tolerance}")


def _check_initial(
    initial: Sequence[np.ndarray] | np.ndarray | None, num_clusters: tuple[int, ...], dim: int
) -> list[np.ndarray] | None:
    if initial is None:
        return None
    given = [initial] if isinstance(initial, np.ndarray) and initial.ndim == 2 else list(initial)
    shapes, expected = [each.shape for each in given], [(k, dim) for k in num_clusters]
    if shapes != expected:
        raise UserError(f"initial: expected centroids of shapes {expected}; got {shapes}")
    if not all(np.isfinite(each).all() for each in given):
        raise UserError("initial: the centroids hold NaN or infinity")
    return given


def _check_memory(memory_per_shard: int | str | None, num_shards: int) -> int | None:
    if num_shards < 1:
        raise UserError(f"num_shards must be at least 1; got {num_shards}")
    available = available_bytes()
    if memory_per_shard is None:
        return None if available is None else available // 2 // num_shards
    wanted = parse_bytes(str(memory_per_shard), "--memory-per-shard")
    if available is not None and wanted > available:
        raise UserError(
            f"--memory-per-shard {format_bytes(wanted)}: only {format_bytes(available)} are free on this machine"
        )
    return wanted


def _describe(vectors: Vectors, num_clusters: tuple[int, ...], options: LloydOptions) -> dict[str, Any]:
    """What was asked for, as JSON; equal for the same vectors and options."""
    if vectors.array is not None:
        stamp = zlib.crc32(vectors.array[:1].tobytes() + vectors.array[-1:].tobytes())
    else:
        stats = [Path(file.path).stat() for file in vectors.files]
        stamp = zlib.crc32(repr([(stat.st_size, stat.st_mtime_ns) for stat in stats]).encode())
    return {
        "vectors": vectors.source,
        "vectors_stamp": stamp,
        "num_vectors": len(vectors),
        "dim": vectors.dim,
        "num_clusters": list(num_clusters),
        **asdict(options),
    }


def _progress(
    descents: list[Descent], sums: list[Any], options: LloydOptions, shards: Shards, seconds: float
) -> Progress:
    moved = [d for d in descents if len(d.history) == max(len(each.history) for each in descents)]
    inertia: dict[int, float] = {}
    imbalance: dict[int, float] = {}
    for descent, each in zip(moved, sums, strict=True):
        if each.inertia <= inertia.get(descent.num_clusters, math.inf):
            inertia[descent.num_clusters], imbalance[descent.num_clusters] = each.inertia, each.imbalance
    return Progress(
        iteration=len(moved[0].history),
        num_iterations=options.num_iterations,
        inertia=inertia,
        imbalance=imbalance,
        received_bytes=getattr(shards, "received_bytes", 0),
        sent_bytes=getattr(shards, "sent_bytes", 0),
        seconds=seconds,
    )


def _spread_ids(ids: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Ids of all vectors from those of the vectors that were clustered; -1 for the others."""
    if not len(left_out):
        return ids
    spread = np.full(len(ids) + len(left_out), -1, np.int32)
    kept = np.ones(len(spread), bool)
    kept[left_out] = False
    spread[kept] = ids
    return spread
