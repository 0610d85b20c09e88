"""What became of the clusters between two states of a run: which kept their id, split, merged, or dissolved."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clray.errors import UserError
from clray.training.checkpoint import BEST_FILE, read_checkpoint
from clray.training.checkpoint_form import Checkpoint
from clray.training.checkpoint_parts import CHECKPOINT_FILE

PART = 0.2
"""The least share of a cluster that counts as a part of it."""


@dataclass(frozen=True)
class Change:
    """What became of one cluster.

    Attributes:
        kind: `kept` (half its images or more stay together under its id), `renamed` (under another), `split` (two
            parts or more), `merged` (a part of a larger one), `dissolved`.
        parts: where its images went: numbers and shares, the largest first, those of at least a fifth.
    """

    number: int
    size: int
    kind: str
    parts: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Changes:
    """From one state to a later one."""

    earlier: str
    later: str
    moved_fraction: float
    clusters: tuple[Change, ...]

    def count(self, kind: str) -> int:
        return sum(change.kind == kind for change in self.clusters)


KINDS = ("kept", "renamed", "split", "merged", "dissolved")


def stored_changes(folder: Path, newest: Checkpoint) -> Changes | None:
    """Between the oldest checkpoint that a run has kept and its newest; None where it has kept one state only."""
    older = []
    for path in (*sorted(folder.glob("checkpoint.*.pt")), folder / BEST_FILE):
        if path.name == CHECKPOINT_FILE or not path.exists():
            continue
        try:
            older.append(read_checkpoint(path))
        except UserError:
            continue  # a damaged one costs its comparison, and nothing else
    first = min(older, key=lambda each: each["epoch"], default=None)
    if first is None or first["epoch"] >= newest["epoch"]:
        return None
    before, after = first["cluster_ids"][0].numpy(), newest["cluster_ids"][0].numpy()
    return changes_between(before, after, f"epoch {first['epoch']}", f"epoch {newest['epoch']}")


def changes_between(before: np.ndarray, after: np.ndarray, earlier: str, later: str) -> Changes:
    """What became of each cluster of `before`, ids of the same images as `after`, both [N]."""
    width = int(max(before.max(), after.max())) + 1
    cells, counts = np.unique(before.astype(np.int64) * width + after, return_counts=True)
    of, to = cells // width, cells % width
    sizes, new_sizes = np.bincount(before, minlength=width), np.bincount(after, minlength=width)
    changes = []
    for number in np.flatnonzero(sizes):
        start, stop = np.searchsorted(of, [number, number + 1])
        order = np.argsort(-counts[start:stop], kind="stable") + start
        parts = [(int(to[each]), float(counts[each] / sizes[number])) for each in order]
        parts = [part for part in parts if part[1] >= PART]
        changes.append(
            Change(int(number), int(sizes[number]), _kind(int(number), sizes, new_sizes, parts), tuple(parts))
        )
    return Changes(earlier, later, float(np.mean(before != after)), tuple(changes))


def _kind(number: int, sizes: np.ndarray, new_sizes: np.ndarray, parts: list[tuple[int, float]]) -> str:
    if not parts:
        return "dissolved"
    if len(parts) > 1:
        return "split"
    to, share = parts[0]
    if share < 0.5:
        return "dissolved"
    if share * sizes[number] < 0.5 * new_sizes[to]:
        return "merged"
    return "kept" if to == number else "renamed"
