"""One writer a folder, in real processes: the lock ends with its holder, and nothing that it starts inherits it."""

import errno
import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.granularity import Granularity, write_clusters
from clray.clusters.statistics import cluster_statistics
from clray.config import Config
from clray.config.sections import DataConfig
from clray.data.build import build_parquet
from clray.errors import UserError
from clray.folder_lock import LOCK_FILE, folder_locked, holds_nothing, require_unlocked
from clray.kmeans.engine import cluster
from clray.training.folder import claim_folder, folder_held, write_config

HOLD = """
import subprocess, sys
from pathlib import Path
from clray.folder_lock import folder_locked
with folder_locked(Path(sys.argv[1])):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    print(child.pid, flush=True)
    input()
"""


@contextmanager
def holder(folder: Path) -> Iterator[tuple[subprocess.Popen, int]]:
    """A process that holds the folder, and a child of its that outlives it."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    child = int(process.stdout.readline())
    try:
        yield process, child
    finally:
        process.kill()
        process.wait()
        os.kill(child, signal.SIGKILL)


def test_a_second_process_is_told_who_holds_the_folder_until_that_one_dies(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "run"
    with holder(folder) as (process, child):
        for attempt in (require_unlocked, lambda each: folder_locked(each).__enter__()):
            with pytest.raises(UserError, match=rf"in use by process {process.pid} on .* since .*; wait until it ends"):
                attempt(folder)
        process.kill()
        process.wait()
        os.kill(child, 0)  # what the holder started still runs, and holds nothing
        with folder_locked(folder):
            assert str(os.getpid()) in (folder / LOCK_FILE).read_text()


def test_the_lock_leaves_nothing_behind(tmp_path: Path) -> None:
    with folder_locked(tmp_path / "empty"):
        assert holds_nothing(tmp_path / "empty")
    assert not (tmp_path / "empty").exists()
    with folder_locked(tmp_path / "used"):
        (tmp_path / "used" / "result").touch()
    assert [each.name for each in (tmp_path / "used").iterdir()] == ["result"]
    assert not holds_nothing(tmp_path / "used")


def test_only_one_of_many_takers_is_in_at_a_time(tmp_path: Path) -> None:
    """Each removes the lock file as it leaves, which must not let two in."""
    inside, entered, most = [0], [0], [0]
    guard = threading.Lock()

    def take() -> None:
        for _ in range(200):
            try:
                with folder_locked(tmp_path):
                    with guard:
                        inside[0] += 1
                        entered[0] += 1
                        most[0] = max(most[0], inside[0])
                    with guard:
                        inside[0] -= 1
            except UserError:
                continue

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert entered[0] > 4


def test_without_locks_on_the_file_system_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with caplog.at_level(logging.WARNING), folder_locked(tmp_path):
        assert "a file system without locks" in caplog.text


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file.*cannot be written"), folder_locked(tmp_path / "file" / "run"):
        pass


def test_whatever_writes_a_folder_of_results_holds_it(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    config = Config(output=str(tmp_path))
    ids = np.array([0, 1])
    found = [Granularity(1, ClusterAssignment(ids, 2, "attributes"), cluster_statistics(ids, ids, 2).as_metrics())]
    write_config(config, tmp_path / "resumed")
    with folder_locked(folder), folder_locked(tmp_path / "resumed"):
        for attempt in (
            lambda: claim_folder(config, "c", "out", resume=False),
            lambda: claim_folder(config, "c", "resumed", resume=True),
            lambda: folder_held(folder, resume=True).__enter__(),
            lambda: cluster(np.eye(8, dtype=np.float32), 2, use_ray=False, output=folder),
            lambda: build_parquet(DataConfig(name="digits"), folder),
            lambda: write_clusters(folder, found, ["a", "b"]),
        ):
            with pytest.raises(UserError, match=f"in use by process {os.getpid()} "):
                attempt()


def test_a_folder_taken_between_claim_and_start_is_refused(tmp_path: Path) -> None:
    config = Config(output=str(tmp_path))
    folder = claim_folder(config, "c", "run", resume=False)
    write_config(config, folder)  # the other command has come and gone meanwhile
    with pytest.raises(UserError, match="holds another run"), folder_held(folder, resume=False):
        pass
