"""What is to be written to MLflow, kept on disk until it is there.

Training never waits for a tracking server: entries go to a file in the folder of the run or sweep, and a thread writes
them to the store in order. While a server is away they stay; every entry can be written twice with the same effect as
once, so that after a kill the one under way is repeated.
"""

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clray.redaction import hide_credentials

OUTBOX_FILE = "mlflow.outbox.jsonl"
SENT_FILE = "mlflow.sent"
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 5.0
Entry = dict[str, Any]
log = logging.getLogger(__name__)


class Unreachable(RuntimeError):
    """The store cannot be reached for now."""


@dataclass
class Progress:
    """Entries in the file, those that are in the store, and since when the store is away (monotonic), if it is."""

    num_entries: int = 0
    num_sent: int = 0
    away_since: float | None = None
    seconds_writing: float = 0.0


class Outbox:
    """Takes entries from any thread and hands them to `write` in its own, each until it has succeeded once."""

    def __init__(self, folder: Path, write: Callable[[Entry], None]) -> None:
        """`write` raises Unreachable for an entry to be tried again; after another error the entry is left out."""
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.sent_path, self.write = folder / OUTBOX_FILE, folder / SENT_FILE, write
        self.entries = read_entries(folder)
        self.progress = Progress(len(self.entries), read_num_sent(folder))
        # Half a line that a kill left behind is cut off.
        self.path.write_bytes(b"".join(json.dumps(entry).encode() + b"\n" for entry in self.entries))
        self.changed = threading.Condition()
        self.closing = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def add(self, entry: Entry) -> None:
        with self.changed:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
            self.entries.append(entry)
            self.progress.num_entries += 1
            self.changed.notify_all()

    def close(self, wait_seconds: float) -> int:
        """Wait for the rest to be written, but no longer than this for a store that is away; returns what is left."""
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        while self.thread.is_alive():
            self.thread.join(0.05)
            away_since = self.progress.away_since
            if away_since is not None and time.monotonic() - away_since > wait_seconds:
                break
        return self.progress.num_entries - self.progress.num_sent

    def _run(self) -> None:
        while True:
            with self.changed:
                while self.progress.num_sent == len(self.entries):
                    if self.closing:
                        return
                    self.changed.wait()
                entry = self.entries[self.progress.num_sent]
            self._send(entry)
            self.progress.num_sent += 1
            write_num_sent(self.sent_path, self.progress.num_sent)

    def _send(self, entry: Entry) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            start = time.perf_counter()
            try:
                self.write(entry)
                if self.progress.away_since is not None:
                    log.warning("the MLflow store is back after %.0f s", time.monotonic() - self.progress.away_since)
                self.progress.away_since = None
                return
            except Unreachable as error:
                if self.progress.away_since is None:
                    self.progress.away_since = time.monotonic()
                    log.warning(
                        "the MLflow store is away, its entries are kept in %s: %s",
                        self.path,
                        hide_credentials(str(error)),
                    )
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            except Exception as error:
                log.warning("MLflow refused %s: %s", entry.get("op"), hide_credentials(str(error)))
                return
            finally:
                self.progress.seconds_writing += time.perf_counter() - start


def read_entries(folder: Path) -> list[Entry]:
    """The entries of a folder's outbox, in order; half a line at its end is left out."""
    path = folder / OUTBOX_FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def read_num_sent(folder: Path) -> int:
    path = folder / SENT_FILE
    return int(path.read_text(encoding="utf-8")) if path.exists() else 0


def write_num_sent(path: Path, count: int) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(str(count), encoding="utf-8")
    partial.replace(path)
