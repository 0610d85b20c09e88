"""What is to be written to MLflow, kept on disk until it is there.

Training never waits for a tracking server: entries go to a file in the folder of the run or sweep, and a thread writes
them to the store in order. While a server cannot be reached they stay. Writing an entry twice has the same effect as
writing it once, so that after a kill the one under way is repeated. Refused entries are kept aside, with the reason.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clray.json_lines import append_line, read_lines
from clray.redaction import hide_credentials
from clray.track.batches import Batch, batched
from clray.track.entries import Entries, Entry

SENT_FILE = "mlflow.sent"
REFUSED_FILE = "mlflow.refused.jsonl"
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 5.0
MOST_AT_ONCE = 200
"""Entries that wait are looked at together, to write what belongs to one run by one request."""
log = logging.getLogger(__name__)


class Unreachable(RuntimeError):
    """The store cannot be reached for now."""


@dataclass
class Progress:
    """How far the entries are.

    Attributes:
        num_entries: in the file.
        num_sent: of them, those that are in the store or were refused.
        num_refused: by the store, in this process; `first_refusal` says why.
        away_since: since when the store cannot be reached (monotonic), if it is.
        failure: what ended the writing thread, if anything did.
    """

    num_entries: int = 0
    num_sent: int = 0
    num_refused: int = 0
    first_refusal: str = ""
    away_since: float | None = None
    failure: str | None = None
    seconds_writing: float = 0.0


class Outbox:
    """Takes entries from any thread and hands them to `write` in its own, each until it has succeeded once."""

    def __init__(
        self, folder: Path, write: Callable[[Entry], None], *, entries: Entries | None = None, from_start: bool = False
    ) -> None:
        """Open the outbox of a folder, with what an earlier process left in it.

        Args:
            entries: of the folder, where they have been read.
            write: raises Unreachable for an entry to be tried again; after another error the entry is kept aside.
            from_start: write all entries again, as to a store that knows none of them.

        Raises:
            UserError: what is in it cannot be read.
        """
        self.folder, self.write = folder, write
        self.entries = Entries(folder) if entries is None else entries
        self.path, self.sent_path = self.entries.path, folder / SENT_FILE
        num_sent = 0 if from_start else min(read_num_sent(folder), len(self.entries))
        self.progress = Progress(len(self.entries), num_sent)
        self.changed = threading.Condition()
        self.aside = threading.Lock()
        self.closing = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def add(self, entry: Entry) -> None:
        """Keep an entry, to be written after those before it; raises UserError where it cannot be kept."""
        with self.changed:
            self.entries.append(entry)
            self.progress.num_entries += 1
            self.changed.notify_all()

    def add_refused(self) -> int:
        """Try once more what the store refused before; returns how many entries these are."""
        path = self.folder / REFUSED_FILE
        with self.aside:  # what is refused again meanwhile must not go with the file
            refused = [line["entry"] for line in read_lines(path) if line is not None and "entry" in line]
            for entry in refused:
                self.add(entry)
            path.unlink(missing_ok=True)
        return len(refused)

    def close(self, wait_seconds: float) -> int:
        """Wait for the rest to be written, or this long for a store that cannot be reached; returns what is left."""
        with self.changed:
            self.closing = True
            self.changed.notify_all()
        while self.thread.is_alive():
            self.thread.join(0.05)
            away_since = self.progress.away_since
            if away_since is not None and time.monotonic() - away_since > wait_seconds:
                break
        self._tell_of_failures()
        return self.progress.num_entries - self.progress.num_sent

    def _tell_of_failures(self) -> None:
        progress = self.progress
        if progress.num_refused:
            log.warning(
                "MLflow refused %d entries, which are kept in %s. The first: %s. To try them again: clray upload %s",
                progress.num_refused, self.folder / REFUSED_FILE, progress.first_refusal, self.folder,
            )  # fmt: skip
        if progress.failure is not None:
            log.warning(
                "writing to MLflow stopped (%s); what is left is kept in %s. To write it: clray upload %s",
                progress.failure, self.path, self.folder,
            )  # fmt: skip

    def _run(self) -> None:
        try:
            while waiting := self._next():
                for batch in batched(waiting):
                    self._send(batch)
                num_sent = self.progress.num_sent + len(waiting)
                write_num_sent(self.sent_path, num_sent)
                self.progress.num_sent = num_sent
        except Exception as error:  # the entries stay, and `close` tells of it
            self.progress.failure = hide_credentials(f"{type(error).__name__}: {error}")

    def _next(self) -> list[Entry]:
        """The next entries; waits for one, and returns none once the outbox is closed and all is written."""
        with self.changed:
            while self.progress.num_sent == len(self.entries):
                if self.closing:
                    return []
                self.changed.wait()
        return self.entries.read(self.progress.num_sent, MOST_AT_ONCE)

    def _send(self, batch: Batch) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            start = time.perf_counter()
            try:
                self.write(batch.entry)
                if self.progress.away_since is not None:
                    log.warning(
                        "the MLflow store answers again after %.0f s", time.monotonic() - self.progress.away_since
                    )
                self.progress.away_since = None
                return
            except Unreachable as error:
                if self.progress.away_since is None:
                    self.progress.away_since = time.monotonic()
                    log.warning(
                        "the MLflow store cannot be reached; its entries are kept in %s: %s",
                        self.path,
                        hide_credentials(str(error)),
                    )
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            except Exception as error:
                if len(batch.parts) == 1:
                    entry = batch.entry
                    self._keep_aside(entry, hide_credentials(f"{entry.get('op')} of {entry.get('run')}: {error}"))
                    return
                break  # which of them is refused, only one by one can tell
            finally:
                self.progress.seconds_writing += time.perf_counter() - start
        for entry in batch.parts:
            self._send(Batch(entry, [entry]))

    def _keep_aside(self, entry: Entry, reason: str) -> None:
        log.info("MLflow refused %s", reason)
        with self.aside:
            append_line(self.folder / REFUSED_FILE, {"reason": reason, "entry": entry})
        self.progress.num_refused += 1
        self.progress.first_refusal = self.progress.first_refusal or reason


def read_num_sent(folder: Path) -> int:
    """How many entries are in the store; 0 where that is not known, for each can be written again."""
    try:
        return max(0, int((folder / SENT_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return 0


def write_num_sent(path: Path, count: int) -> None:
    """Note how many entries are in the store; a reader finds the old number or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(str(count), encoding="utf-8")
    partial.replace(path)
