"""Entries that lie in a file are found again without reading the others, and batches say the same as their parts."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clray.track.batches import batched
from clray.track.entries import Entries, Entry, read_entries
from clray.track.outbox import Outbox
from clray.track.runs import RunLogger


def entry_of(number: int, draw: random.Random) -> Entry:
    run = f"s/{draw.randrange(4)}"
    values = {f"{draw.choice('ab')}": float(number)}
    return draw.choice(
        (
            {"op": "start", "run": run, "params": {"p": "1"}},
            {"op": "resume", "run": run},
            {"op": "metrics", "run": run, "step": number, "time": number, "values": values},
            {"op": "tags", "run": run, "values": {key: str(value) for key, value in values.items()}},
            {"op": "tags", "run": run},
            {"op": "text", "run": run, "text": str(number)},
            {"op": "finish", "run": run, "status": "FINISHED"},
            {"op": "unreadable", "run": ""},
        )
    )


def effect(entries: list[Entry]) -> dict[str, Any]:
    """By run, what a store holds in the end."""
    runs: dict[str, Any] = {}
    for entry in entries:
        run = runs.setdefault(entry["run"], {"metrics": [], "tags": {}, "other": []})
        own = [entry] if entry["op"] == "metrics" else entry.get("metrics", [])
        run["metrics"] += [(each["step"], each["time"], each["values"]) for each in own]
        run["tags"] |= (entry.get("values") or {}) if entry["op"] == "tags" else entry.get("later_tags", {})
        if entry["op"] in ("start", "resume", "text", "finish"):
            run["other"].append({key: entry[key] for key in entry.keys() - {"metrics", "later_tags"}})
    return runs


@pytest.mark.parametrize("seed", range(20))
def test_batches_write_what_their_entries_write(seed: int) -> None:
    draw = random.Random(seed)
    entries = [entry_of(number, draw) for number in range(60)]
    batches = batched(entries)
    assert effect([batch.entry for batch in batches]) == effect(entries)
    assert sorted(map(str, (part for batch in batches for part in batch.parts))) == sorted(map(str, entries))
    for name in {entry["run"] for entry in entries}:
        ends = [[e["op"] for e in each if e["run"] == name and e["op"] in ("start", "resume", "finish")]
                for each in (entries, [batch.entry for batch in batches])]  # fmt: skip
        assert ends[0] == ends[1]


def test_a_trial_that_waits_is_written_by_one_entry_for_all_its_values() -> None:
    epochs = [{"op": "metrics", "run": "s/0", "step": n, "time": n, "values": {"train/loss": 1.0}} for n in range(300)]
    start, tags = {"op": "start", "run": "s/0"}, {"op": "tags", "run": "s/0", "values": {"state": "finished"}}
    finish = {"op": "finish", "run": "s/0"}
    assert len(batched([start, *epochs, tags, finish])) == 2
    assert len(batched([finish, tags, *epochs, finish])) == 3, "nothing moves past the end of a run"


def test_what_is_refused_in_a_batch_is_refused_alone(tmp_path: Path) -> None:
    class Store:
        def __init__(self) -> None:
            self.taken: list[Entry] = []

        def __call__(self, entry: Entry) -> None:
            if "bad" in str(entry):
                raise ValueError("refused")
            self.taken.append(entry)

    file = Entries(tmp_path)
    names = ("first", "bad", "last")
    for number, name in enumerate(names):
        file.append({"op": "metrics", "run": "r", "step": number, "time": 0, "values": {name: 1.0}})
    store = Store()
    outbox = Outbox(tmp_path, store)
    assert outbox.close(10) == 0
    assert [each["values"] for each in store.taken] == [{"first": 1.0}, {"last": 1.0}]
    assert outbox.progress.num_refused == 1


@pytest.mark.parametrize("seed", range(10))
def test_what_is_known_of_a_run_is_what_its_entries_say(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    entries = Entries(tmp_path)
    written = [entry_of(number, draw) for number in range(40)]
    for entry in written:
        entries.append(entry)
    for found in (entries, Entries(tmp_path)):
        assert found.read(0, 99) == written
        for name in {entry["run"] for entry in written}:
            own = [entry for entry in written if entry["run"] == name]
            ops = [str(each.get("status", each["op"])) for each in own if each["op"] in ("start", "resume", "finish")]
            assert list(found.of(name)) == own
            assert found.last_ops.get(name) == (ops[-1] if ops else None)
            assert found.runs[name].step == max(each.get("step", 0) for each in own)
    assert read_entries(tmp_path) == written


def test_what_one_run_is_asked_reads_no_entry_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = Entries(tmp_path)
    for number in range(500):
        entries.append({"op": "metrics", "run": f"s/{number}", "step": 1, "time": 7, "values": {"train/loss": 1.0}})
    outbox = Outbox(tmp_path, lambda _: None, entries=entries)
    outbox.close(10)
    read: list[str] = []
    whole = Entries.of

    def counted(self: Entries, run: str) -> Iterator[Entry]:
        for entry in whole(self, run):
            read.append(entry["run"])
            yield entry

    monkeypatch.setattr(Entries, "of", counted)
    monkeypatch.setattr(Entries, "read", lambda *_: pytest.fail("the writer is closed"))
    logger = RunLogger(outbox, "s/3", tmp_path)
    logger.log_model(tmp_path / "model", 1)
    logger.log_summary({"train/loss": 1.0, "other": 2.0})
    assert read == ["s/3"] * 3
