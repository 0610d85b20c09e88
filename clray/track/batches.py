"""Entries that one request can write, put together: a store that is behind then catches up in half the requests."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from clray.track.entries import Entry


@dataclass
class Batch:
    """One entry to be written, and the entries that it stands for, one by one the same."""

    entry: Entry
    parts: list[Entry] = field(default_factory=list)


def batched(entries: Sequence[Entry]) -> list[Batch]:
    """The entries, with metrics and tags moved up to those of the same run before them.

    What belongs to one run keeps its order otherwise, and so do the runs. Nothing is moved past the end of a run or its
    resumption.
    """
    batches: list[Batch] = []
    growing: dict[str, Batch] = {}
    for entry in entries:
        run = entry.get("run")
        op = entry.get("op")
        if isinstance(run, str) and run in growing and _can_move(entry):
            _take(growing[run], entry)
            continue
        batches.append(Batch(entry, [entry]))
        if isinstance(run, str) and (op == "start" or _can_move(entry)):
            growing[run] = batches[-1]
        elif isinstance(run, str) and op in ("finish", "resume"):
            growing.pop(run, None)
    return batches


def _can_move(entry: Entry) -> bool:
    """Whether these are metrics or tags as `RunLogger` writes them; a damaged line stays where it is."""
    needed = {"metrics": {"step", "time", "values"}, "tags": {"values"}}.get(str(entry.get("op")))
    return needed is not None and needed <= entry.keys() and isinstance(entry["values"], dict)


def _take(batch: Batch, entry: Entry) -> None:
    if len(batch.parts) == 1:
        own = batch.entry
        if own["op"] == "start":
            batch.entry = {**own, "metrics": [], "later_tags": {}}
        else:
            batch.entry = {"op": "values", "run": own["run"], "metrics": [], "later_tags": {}}
            _add(batch.entry, own)
    _add(batch.entry, entry)
    batch.parts.append(entry)


def _add(values: Entry, entry: Entry) -> None:
    if entry["op"] == "tags":
        values["later_tags"] |= entry["values"]
    else:
        values["metrics"].append({"step": entry["step"], "time": entry["time"], "values": entry["values"]})
