"""`clray.duplicates`: near-duplicates within the clusters of a clustering, out of core.

Vectors that are nearly equal lie in one cluster, nearly always, so that N^2 comparisons become N^2 / K (Abbas et al.,
*SemDeDup*, arXiv 2303.09540). Of each set of near-duplicates the first row is kept.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from clray.clusters.saved import SavedClustering, open_clustering
from clray.errors import UserError
from clray.folder_lock import folder_locked, holds_nothing
from clray.kmeans.memory import format_bytes, parse_bytes
from clray.kmeans.near import BLOCK, first_near
from clray.kmeans.rows import write_rows
from clray.kmeans.vectors.source import Vectors, VectorSlice, read_vectors

TABLE_FILE, KEPT_FILE, PARTS_FOLDER, ASKED_FILE = "duplicates.csv", "kept.csv", "parts", "duplicates.json"
OnCluster = Callable[[int, int], None]
Part = tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"], Float[np.ndarray, " n"]]
"""Rows that are near-duplicates, ascending; the kept row of each; and their cosine."""


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates among N vectors.

    Attributes:
        rows: of the near-duplicates, ascending, int64.
        kept_rows: for each the row that is kept in its place.
        cosine: of the two, float32.
        num_vectors: N, those in no cluster left out.
    """

    rows: np.ndarray
    kept_rows: np.ndarray
    cosine: np.ndarray
    num_vectors: int


def duplicates(
    result: Path | str,
    vectors: Any = None,
    *,
    cosine: float = 0.95,
    num_clusters: int | None = None,
    column: str | None = None,
    memory: int | str = "512MiB",
    use_ray: bool = True,
    output: Path | str | None = None,
    resume: bool = False,
    on_group: OnCluster | None = None,
    verbose: bool = False,
) -> Duplicates:
    """Find the vectors that are nearly equal to an earlier one of their cluster.

    Args:
        result: output folder of `clray.cluster`.
        vectors: what was clustered, as for `clray.cluster`; by default the path that was clustered.
        cosine: from which similarity on two vectors are near-duplicates, above 0 and at most 1.
        num_clusters: the granularity; by default the finest.
        memory: bound on the vectors that a task holds, such as `512MiB`; whole clusters are read together.
        use_ray: compare on the cluster of `RAY_ADDRESS`, or one that is started; False does so in this process.
        output: new folder for `duplicates.csv` and `kept.csv`; what is done is kept there, from which `resume`
            continues.
        on_group: hears of groups of clusters that are done, and how many there are.

    Raises:
        UserError: no clustering, other vectors, a cluster that does not fit the memory, an output in use.
    """
    clustering = open_clustering(Path(result))
    count = max(clustering.num_clusters) if num_clusters is None else num_clusters
    if not 0 < cosine <= 1:
        raise UserError(f"cosine: expected a similarity above 0 and at most 1; got {cosine:g}")
    ids = clustering.ids(count)
    opened = _opened(vectors, clustering, column)
    groups = _groups(ids, count, opened.dim, parse_bytes(str(memory), "memory"))
    folder = None if output is None else Path(output)
    if folder is None and resume:
        raise UserError("resume: name the output folder of the interrupted search")
    asked = {"result": str(Path(result).resolve()), "vectors": opened.source, "stamp": opened.stamp(), "cosine": cosine,
             "num_clusters": count, "groups": [int(each[0]) for each in groups]}  # fmt: skip
    with nullcontext() if folder is None else folder_locked(folder):
        parts = _kept_parts(folder, asked, resume=resume)
        left = [number for number in range(len(groups)) if number not in parts]
        search = partial(_on_ray, verbose=verbose) if use_ray and left else _here
        for number, part in search(opened, ids, [groups[number] for number in left], cosine):
            parts[left[number]] = part
            if folder is not None:
                _keep(folder, left[number], part)
            if on_group is not None:
                on_group(len(parts), len(groups))
        rows, kept_rows, similarity = map(np.concatenate, zip(*parts.values(), strict=True))
        order = np.argsort(rows)
        found = Duplicates(rows[order], kept_rows[order], similarity[order], int((ids >= 0).sum()))
        if folder is not None:
            _write(folder, found, ids, opened)
    return found


def _opened(vectors: Any, clustering: SavedClustering, column: str | None) -> Vectors:
    if vectors is None:
        if clustering.source is None or not Path(clustering.source).exists():
            raise UserError(
                f"vectors: {clustering.folder} was made from {clustering.source or 'no vectors'}, which is not there; "
                "name the vectors that were clustered"
            )
        vectors = clustering.source
    opened = read_vectors(vectors, column)
    if len(opened) != clustering.num_vectors:
        raise UserError(
            f"vectors: {opened.source} holds {len(opened)}, and {clustering.num_vectors} were clustered in "
            f"{clustering.folder}; name the same vectors"
        )
    return opened


def _groups(ids: np.ndarray, num_clusters: int, dim: int, memory_bytes: int) -> list[np.ndarray]:
    """Clusters that are read together: as many as the memory holds, in the order of their ids.

    Raises:
        UserError: a cluster alone is too large.
    """
    # A vector is there as it is read, in float64 while its length is measured, and scaled.
    size = np.bincount(ids[ids >= 0], minlength=num_clusters) * dim * 16
    free = memory_bytes - 9 * BLOCK * BLOCK * 4
    if size.max() > free:
        largest = int(size.argmax())
        raise UserError(
            f"memory={format_bytes(memory_bytes)}: cluster {largest} needs "
            f"{format_bytes(int(size[largest]) + memory_bytes - free)}; raise it, or cluster into more clusters"
        )
    groups, start, used = [], 0, 0
    for number, each in enumerate(size.tolist()):
        if used + each > free:
            groups.append(np.arange(start, number))
            start, used = number, 0
        used += each
    return [*groups, np.arange(start, num_clusters)]


def search_group(vectors: VectorSlice, rows: np.ndarray, ids: np.ndarray, cosine: float) -> Part:
    """Near-duplicates within some clusters.

    Args:
        rows: of the vectors of these clusters, ascending.
        ids: the cluster of each.
    """
    held = vectors.take(rows)
    found: list[Part] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    order = np.argsort(ids, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(ids[order])) + 1):
        near, similarity = first_near(held[members], cosine)
        is_near = near >= 0
        found.append((rows[members[is_near]], rows[members[near[is_near]]], similarity[is_near]))
    first, second, third = (np.concatenate(each) for each in zip(*found, strict=True))
    return first, second, third


def _members(ids: np.ndarray, groups: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Rows of each group, ascending."""
    order = np.argsort(ids, kind="stable")
    ordered = ids[order]
    for group in groups:
        low, high = np.searchsorted(ordered, [group[0], group[-1] + 1])
        yield np.sort(order[low:high])


def _here(vectors: Vectors, ids: np.ndarray, groups: Sequence[np.ndarray], cosine: float) -> Iterator[tuple[int, Part]]:
    whole = vectors.slice(0, len(vectors))
    for number, rows in enumerate(_members(ids, groups)):
        yield number, search_group(whole, rows, ids[rows], cosine)


def _on_ray(
    vectors: Vectors, ids: np.ndarray, groups: Sequence[np.ndarray], cosine: float, *, verbose: bool
) -> Iterator[tuple[int, Part]]:
    from clray.kmeans.shards.tasks import run_tasks

    whole = vectors.slice(0, len(vectors))
    return run_tasks(
        search_group, whole, ((rows, ids[rows], cosine) for rows in _members(ids, groups)), verbose=verbose
    )


def _kept_parts(folder: Path | None, asked: dict[str, Any], *, resume: bool) -> dict[int, Part]:
    """What an interrupted search has found; claims a new folder.

    Raises:
        UserError: a folder with something else, or nothing to resume.
    """
    if folder is None:
        return {}
    file = folder / ASKED_FILE
    if not resume:
        if not holds_nothing(folder):
            raise UserError(f"output: {folder} is not empty; resume it, or choose another folder")
        (folder / PARTS_FOLDER).mkdir()
        unfinished = file.with_name(file.name + ".partial")
        unfinished.write_text(json.dumps(asked, indent=2), encoding="utf-8")
        unfinished.replace(file)
        return {}
    if not file.is_file():
        raise UserError(f"resume: {folder} holds no search for duplicates; start one without resume")
    if json.loads(file.read_text(encoding="utf-8")) != asked:
        raise UserError(f"resume: {folder} was started with other vectors or settings; use the same, or another output")
    if (folder / TABLE_FILE).exists():
        raise UserError(f"resume: the search in {folder} is finished")
    parts = {}
    for path in (folder / PARTS_FOLDER).glob("*.npz"):
        with np.load(path, allow_pickle=False) as saved:
            parts[int(path.stem)] = (saved["rows"], saved["kept_rows"], saved["cosine"])
    return parts


def _keep(folder: Path, number: int, part: Part) -> None:
    path = folder / PARTS_FOLDER / f"{number:06d}.npz"
    unfinished = path.with_name(path.name + ".partial")
    with unfinished.open("wb") as file:
        np.savez(file, rows=part[0], kept_rows=part[1], cosine=part[2])
    unfinished.replace(path)


def _write(folder: Path, found: Duplicates, ids: np.ndarray, vectors: Vectors) -> None:
    known = vectors if vectors.array is None else None
    is_kept = ids >= 0
    is_kept[found.rows] = False
    kept = np.flatnonzero(is_kept)
    write_rows(folder / KEPT_FILE, kept, {"cluster": ids[kept]}, known)
    columns = {"kept_row": found.kept_rows, "cosine": found.cosine, "cluster": ids[found.rows]}
    write_rows(folder / TABLE_FILE, found.rows, columns, known)
    for path in (folder / PARTS_FOLDER).iterdir():
        path.unlink()
    (folder / PARTS_FOLDER).rmdir()
