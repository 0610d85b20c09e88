"""What the driver does for each trial, told of it as Ray Tune does. Neither Ray nor a store is started."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from clray.config import Config
from clray.data.load import load_dataset
from clray.sweeps.book import TrialBook
from clray.sweeps.search_space import plan_sweep
from clray.sweeps.tuner import Reporter
from clray.track.runs import RunLogger


class Kept:
    """A tracker and its outbox, whose entries go nowhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: list[dict[str, Any]] = []

    def start_run(self, *, run_id: str, **_: object) -> RunLogger:
        outbox: Any = SimpleNamespace(add=self.entries.append)
        return RunLogger(outbox, run_id, self.folder)


def test_the_data_are_read_once_for_all_trials(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = tiny_config(search_space=[{"objective.temperature": {"grid_search": [0.1, 0.2, 0.3]}}])
    book, kept, hashed = TrialBook(config, plan_sweep(config), tmp_path), Kept(tmp_path), []
    sha256 = hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda data: hashed.append(len(data)) or sha256(data))
    tracker, display = (kept, SimpleNamespace(update=lambda _: None))
    reporter = Reporter(book, tmp_path, tracker, load_dataset(config.data), display, None)  # type: ignore[arg-type]
    for record in book.records:
        trial: Any = SimpleNamespace(config={"point": record.point.index})
        reporter.on_trial_start(0, [], trial)
    described = [entry for entry in kept.entries if entry["op"] == "dataset"]
    assert len(described) == 4, "of the sweep and of each trial"
    assert len({entry["digest"] for entry in described}) == 1
    assert len(hashed) == 1
