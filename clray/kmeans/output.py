"""A clustering on disk: results, and the state from which an interrupted one goes on.

A folder with one granularity holds centroids.npy and assignments.npy; one with several holds them in k50/, k500/.
clustering.json says what was clustered, how, and how it went; it is written last.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clray.clusters.saved import ASSIGNMENTS_FILE, SUMMARY_FILE, granularity_folder
from clray.errors import UserError
from clray.folder_lock import holds_nothing
from clray.kmeans.lloyd import Clustering, Descent
from clray.kmeans.memory import format_bytes
from clray.kmeans.vectors.source import Vectors

STATE_FILE = "state.npz"
PARENTS_FILE = "parents.npy"


def check_output(folder: Path, *, resume: bool, fingerprint: dict[str, Any]) -> None:
    """Refuse a folder that holds something else.

    Args:
        fingerprint: what was asked for; an interrupted clustering goes on only with the same.

    Raises:
        UserError: a folder in use, or with `resume` one that holds nothing to go on with or something else.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output: {folder} is a file; choose a folder")
    state = folder / STATE_FILE
    if resume:
        if (folder / SUMMARY_FILE).exists():
            raise UserError(f"--resume: the clustering in {folder} is finished")
        if not state.exists():
            raise UserError(f"--resume: {folder} holds no interrupted clustering; leave out --resume to start one")
        saved = _read_about(state)
        changed = [key for key in fingerprint if saved.get(key) != fingerprint[key]]
        if changed:
            key = changed[0]
            raise UserError(
                f"--resume: {folder} was started with another {', '.join(changed)} ({key}: {saved.get(key)!r}, now "
                f"{fingerprint[key]!r}); use the same vectors and options, or another --output"
            )
    elif state.exists():
        raise UserError(f"--output: {folder} holds an interrupted clustering; go on with --resume, or choose another")
    elif not holds_nothing(folder):
        raise UserError(f"--output: {folder} is not empty; choose another folder")


def check_disk(folder: Path, num_vectors: int, num_clusters: Sequence[int], num_redos: int, dim: int) -> None:
    """Raise UserError where the results, and the state beside them, would not fit on the disk."""
    ids = 4 * num_vectors * len(num_clusters)
    centroids = 4 * dim * sum(num_clusters)
    # The state is written beside the one it replaces.
    needed = ids + centroids * (1 + 2 * num_redos) + 2**20
    existing = next(parent for parent in (folder.resolve(), *folder.resolve().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise UserError(
            f"--output: {format_bytes(needed)} are needed for {folder}, {format_bytes(free)} are free on its disk"
        )


def write_state(folder: Path, descents: Sequence[Descent], about: dict[str, Any]) -> None:
    """Replace the state at once, so that a kill leaves the old one or the new one."""
    folder.mkdir(parents=True, exist_ok=True)
    tree = {"about": about, "descents": [{"redo": d.redo, "history": d.history, "done": d.is_done} for d in descents]}
    partial = folder / (STATE_FILE + ".partial")
    with partial.open("wb") as file:
        arrays = {f"centroids_{i}": descent.centroids for i, descent in enumerate(descents)}
        np.savez(file, about=np.array(json.dumps(tree)), **arrays)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / STATE_FILE)


def read_state(folder: Path) -> list[Descent]:
    """The descents of an interrupted clustering."""
    with np.load(folder / STATE_FILE, allow_pickle=False) as saved:
        trees = json.loads(str(saved["about"]))["descents"]
        return [
            Descent(tree["redo"], saved[f"centroids_{i}"], tree["history"], tree["done"])
            for i, tree in enumerate(trees)
        ]


def _read_about(state: Path) -> dict[str, Any]:
    try:
        with np.load(state, allow_pickle=False) as saved:
            return json.loads(str(saved["about"]))["about"]
    except (ValueError, KeyError, OSError) as error:
        raise UserError(f"--resume: {state} cannot be read ({error}); start again in another folder") from error


def write_clusterings(
    folder: Path,
    clusterings: Sequence[Clustering],
    about: dict[str, Any],
    *,
    parents: Sequence[np.ndarray] = (),
    table_of: Vectors | None = None,
) -> dict[str, Any]:
    """Write the results and remove the state; returns what clustering.json holds.

    Args:
        clusterings: one per granularity; for nested ones from the finest to the coarsest.
        about: what was clustered and how; kept in clustering.json.
        parents: for each but the last of nested clusterings, the coarser cluster of each of its clusters.
        table_of: also write assignments.parquet, with file and row of each of these vectors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for i, clustering in enumerate(clusterings):
        place = granularity_folder(folder, clustering.num_clusters, len(clusterings))
        place.mkdir(exist_ok=True)
        np.save(place / "centroids.npy", clustering.centroids)
        np.save(place / ASSIGNMENTS_FILE, clustering.ids)
        if i < len(parents):
            np.save(place / PARENTS_FILE, parents[i])
    if table_of is not None:
        _write_table(folder / "assignments.parquet", clusterings, table_of)
    summary = {
        **about,
        "num_vectors": len(clusterings[0].ids),
        "dim": clusterings[0].centroids.shape[1],
        "nested": len(parents) > 0,
        "granularities": [_describe(clustering) for clustering in clusterings],
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


def _write_table(path: Path, clusterings: Sequence[Clustering], vectors: Vectors) -> None:
    names = [(file.path, file.num_rows) for file in vectors.files] or [(vectors.source, len(vectors))]
    clusters = {f"cluster_{each.num_clusters}": each.ids for each in clusterings}
    if len(clusterings) == 1:
        clusters = {"cluster": clusterings[0].ids}
    kinds = [("file", pa.string()), ("row", pa.int64()), *((name, pa.int32()) for name in clusters)]
    start = 0
    with pq.ParquetWriter(path, pa.schema(kinds)) as writer:
        for name, num_rows in names:
            columns = {"file": [name] * num_rows, "row": np.arange(num_rows)}
            ids = {each: values[start : start + num_rows] for each, values in clusters.items()}
            writer.write_table(pa.table({**columns, **ids}, schema=writer.schema))
            start += num_rows
