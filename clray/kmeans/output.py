"""A clustering on disk: results, and the state from which an interrupted one resumes.

A folder with one granularity holds centroids.npy and assignments.npy; one with several holds them in k50/, k500/.
clustering.json says what was clustered, how, and how it went; it is written last.
"""

import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clray.clusters.saved import (
    ASSIGNMENTS_FILE,
    CENTROIDS_FILE,
    DISTANCES_FILE,
    PARENTS_FILE,
    SUMMARY_FILE,
    checksum,
    granularity_folder,
)
from clray.errors import UserError
from clray.folder_lock import holds_nothing
from clray.kmeans.lloyd import Clustering, Descent
from clray.kmeans.memory import format_bytes
from clray.kmeans.vectors.source import Vectors

STATE_FILE = "state.npz"


@dataclass(frozen=True)
class State:
    """From where an interrupted clustering resumes.

    Attributes:
        descents: all of them, finished or not; their centroids are relative to the origin.
        origin: float32 or float64 [dim]; None is zero.
    """

    descents: list[Descent]
    origin: np.ndarray | None = None


def check_output(folder: Path, *, resume: bool, fingerprint: dict[str, Any]) -> State | None:
    """Refuse a folder that holds something else.

    Args:
        fingerprint: what was asked for; an interrupted clustering resumes only with the same.

    Returns:
        With `resume` the state to resume from.

    Raises:
        UserError: a folder in use, or with `resume` one that holds nothing to resume or something else.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output: {folder} is a file; choose a folder")
    file = folder / STATE_FILE
    if not resume:
        if file.exists():
            raise UserError(f"output: {folder} holds an interrupted clustering; resume it, or choose another folder")
        if not holds_nothing(folder):
            raise UserError(f"output: {folder} is not empty; choose another folder")
        return None
    if (folder / SUMMARY_FILE).exists():
        raise UserError(f"resume: the clustering in {folder} is finished")
    if not file.exists():
        raise UserError(f"resume: {folder} holds no interrupted clustering; start one without resume")
    state, about = read_state(folder)
    # Of both: what only one of them holds decides only its result, as `sample_fraction` where there is a sample.
    changed = [key for key in {**fingerprint, **about} if about.get(key) != fingerprint.get(key)]
    if changed:
        key = changed[0]
        before, now = (repr(each[key]) if key in each else "left out" for each in (about, fingerprint))
        raise UserError(
            f"resume: {folder} was started with another {', '.join(changed)} ({key}: {before}, now {now}); use the "
            "same vectors and options, or another output"
        )
    return state


def check_disk(
    folder: Path,
    num_vectors: int,
    num_clusters: Sequence[int],
    num_redos: int,
    dim: int,
    *,
    bytes_per_vector: int = 4,
) -> None:
    """Raise UserError where the results, and the state beside them, would not fit on the disk."""
    ids = bytes_per_vector * num_vectors * len(num_clusters)
    centroids = 4 * dim * sum(num_clusters)
    # The state is written beside the one it replaces.
    needed = ids + centroids * (1 + 2 * num_redos) + 2**20
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"output: {format_bytes(needed)} are needed for {folder}, {format_bytes(free)} are free on its disk"
        )


def write_state(folder: Path, state: State, about: dict[str, Any]) -> None:
    """Replace the state at once, so that a kill leaves the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    descents = [{"redo": d.redo, "history": d.history, "done": d.is_done} for d in state.descents]
    arrays = {f"centroids_{i}": descent.centroids for i, descent in enumerate(state.descents)}
    arrays["about"] = np.array(json.dumps({"about": about, "descents": descents}))
    if state.origin is not None:
        arrays["origin"] = state.origin
    partial = folder / (STATE_FILE + ".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # NumPy takes one name apart from the arrays'
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / STATE_FILE)


def read_state(folder: Path) -> tuple[State, dict[str, Any]]:
    """The state of an interrupted clustering, and what was asked for.

    Raises:
        UserError: a damaged state.
    """
    path = folder / STATE_FILE
    try:
        if not path.is_file():
            raise ValueError("not a file")
        # Of a path that is no archive NumPy leaves the file open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as saved:
            arrays = {name: saved[name] for name in saved.files}
        tree = json.loads(str(arrays["about"]))
        descents = [_read_descent(each, arrays[f"centroids_{i}"]) for i, each in enumerate(tree["descents"])]
        origin = arrays.get("origin")
        dims = {descent.centroids.shape[1] for descent in descents}
        if not isinstance(tree["about"], dict) or len(dims) != 1 or not _is_point(origin, *dims):
            raise ValueError("its parts do not fit together")
    except Exception as error:  # a damaged archive fails in as many ways as zip files and NumPy have
        raise UserError(
            f"resume: {path} is damaged ({type(error).__name__}: {str(error)[:200]}); delete it and start again, or "
            "choose another output"
        ) from error
    return State(descents, origin), tree["about"]


def _read_descent(tree: dict[str, Any], centroids: np.ndarray) -> Descent:
    redo, history, is_done = tree["redo"], tree["history"], tree["done"]
    is_whole = type(redo) is int and redo >= 0 and type(is_done) is bool
    if not is_whole or not history or not all(type(each) is float and math.isfinite(each) for each in history):
        raise ValueError("a start of other values than were written")
    if centroids.ndim != 2 or centroids.dtype != np.float32 or not np.isfinite(centroids).all():
        raise ValueError("centroids that are none")
    return Descent(redo, centroids, history, is_done)


def _is_point(origin: np.ndarray | None, dim: int) -> bool:
    return origin is None or (origin.shape == (dim,) and origin.dtype.kind == "f" and bool(np.isfinite(origin).all()))


def spread(values: np.ndarray, left_out: np.ndarray, fill: float) -> np.ndarray:
    """Values of all vectors from those of the vectors that were searched, with `fill` for the others."""
    if not len(left_out):
        return values
    whole = np.full(len(values) + len(left_out), fill, values.dtype)
    kept = np.ones(len(whole), bool)
    kept[left_out] = False
    whole[kept] = values
    return whole


def write_clusterings(
    folder: Path,
    clusterings: Sequence[Clustering],
    about: dict[str, Any],
    *,
    parents: Sequence[np.ndarray] = (),
    distances: Sequence[np.ndarray] = (),
    table_of: Vectors | None = None,
) -> dict[str, Any]:
    """Write the results and remove the state; returns what clustering.json holds.

    Args:
        clusterings: one per granularity; for nested ones from the finest to the coarsest.
        about: what was clustered and how; kept in clustering.json.
        parents: for each but the last of nested clusterings, the coarser cluster of each of its clusters.
        distances: of each clustering the squared distance of each vector to its centroid, float32 [N].
        table_of: also write assignments.parquet, with file and row of each of these vectors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checksums: dict[str, int] = {}
    for i, clustering in enumerate(clusterings):
        place = granularity_folder(folder, clustering.num_clusters, len(clusterings))
        place.mkdir(exist_ok=True)
        arrays = {CENTROIDS_FILE: clustering.centroids, ASSIGNMENTS_FILE: clustering.ids}
        if i < len(parents):
            arrays[PARENTS_FILE] = parents[i]
        if distances:
            arrays[DISTANCES_FILE] = distances[i]
        for name, array in arrays.items():
            np.save(place / name, array)
            checksums[(place / name).relative_to(folder).as_posix()] = checksum(place / name)
    if table_of is not None:
        _write_table(folder / "assignments.parquet", clusterings, distances, table_of)
    summary = {
        **about,
        "num_vectors": len(clusterings[0].ids),
        "dim": clusterings[0].centroids.shape[1],
        "nested": len(parents) > 0,
        "granularities": [_describe(clustering) for clustering in clusterings],
        "checksums": checksums,
    }
    partial = folder / (SUMMARY_FILE + ".partial")
    partial.write_text(json.dumps(summary, indent=2), encoding="utf-8")
    partial.replace(folder / SUMMARY_FILE)
    (folder / STATE_FILE).unlink(missing_ok=True)
    return summary


def _describe(clustering: Clustering) -> dict[str, Any]:
    sizes = clustering.sizes.astype(np.float64)
    return {
        "num_clusters": clustering.num_clusters,
        "num_nonempty": int((sizes > 0).sum()),
        "smallest_cluster": int(sizes.min()),
        "largest_cluster": int(sizes.max()),
        "imbalance_factor": len(sizes) * float((sizes**2).sum()) / max(sizes.sum(), 1.0) ** 2,
        "inertia": clustering.inertia,
        "num_iterations": clustering.num_iterations,
        "inertia_history": clustering.history,
    }


def _write_table(
    path: Path, clusterings: Sequence[Clustering], distances: Sequence[np.ndarray], vectors: Vectors
) -> None:
    names = [(file.path, file.num_rows) for file in vectors.files] or [(vectors.source, len(vectors))]
    columns: dict[str, np.ndarray] = {}
    for i, each in enumerate(clusterings):
        suffix = f"_{each.num_clusters}" if len(clusterings) > 1 else ""
        columns[f"cluster{suffix}"] = each.ids
        if distances:
            columns[f"squared_distance{suffix}"] = distances[i]
    kinds = [(name, pa.from_numpy_dtype(values.dtype)) for name, values in columns.items()]
    start = 0
    with pq.ParquetWriter(path, pa.schema([("file", pa.string()), ("row", pa.int64()), *kinds])) as writer:
        for name, num_rows in names:
            part = {each: values[start : start + num_rows] for each, values in columns.items()}
            rows = {"file": [name] * num_rows, "row": np.arange(num_rows)}
            writer.write_table(pa.table({**rows, **part}, schema=writer.schema))
            start += num_rows
