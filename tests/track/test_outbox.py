"""Entries reach the store in order, each at least once, whatever the store does meanwhile."""

import json
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from clray.errors import UserError
from clray.track.entries import OUTBOX_FILE, read_entries
from clray.track.outbox import REFUSED_FILE, SENT_FILE, Outbox, Unreachable, read_num_sent


class FlakyStore:
    """Takes entries, but for those that it is told to refuse, and while it is away none."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.is_away = False
        self.refused: set[int] = set()

    def __call__(self, entry: dict) -> None:
        if self.is_away:
            raise Unreachable("no answer")
        if entry["number"] in self.refused:
            raise ValueError("refused")
        self.taken.append(entry["number"])


def test_entries_arrive_in_order_from_many_threads(tmp_path: Path) -> None:
    store = FlakyStore()
    outbox = Outbox(tmp_path, store)
    threads = [
        threading.Thread(target=lambda n=n: [outbox.add({"number": 10 * n + i}) for i in range(10)]) for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outbox.close(wait_seconds=10) == 0
    assert sorted(store.taken) == list(range(80))
    for n in range(8):
        own = [number for number in store.taken if number // 10 == n]
        assert own == sorted(own)


def test_a_store_that_is_away_gets_everything_when_it_is_back(tmp_path: Path) -> None:
    store = FlakyStore()
    store.is_away = True
    outbox = Outbox(tmp_path, store)
    start = time.perf_counter()
    for number in range(50):
        outbox.add({"number": number})
    assert time.perf_counter() - start < 5, "adding never waits for the store"
    time.sleep(0.8)
    assert store.taken == []
    store.is_away = False
    assert outbox.close(wait_seconds=30) == 0
    assert store.taken == list(range(50))


def test_what_a_store_never_took_is_kept_for_later(tmp_path: Path) -> None:
    store = FlakyStore()
    outbox = Outbox(tmp_path, store)
    outbox.add({"number": 0})
    while not store.taken:
        time.sleep(0.01)
    store.is_away = True
    outbox.add({"number": 1})
    outbox.add({"number": 2})
    assert outbox.close(wait_seconds=0.3) == 2
    assert read_num_sent(tmp_path) == 1
    later = FlakyStore()
    assert Outbox(tmp_path, later).close(wait_seconds=10) == 0
    assert later.taken == [1, 2]


def test_half_a_line_left_by_a_kill_is_cut_off(tmp_path: Path) -> None:
    Outbox(tmp_path, FlakyStore()).close(0)
    with (tmp_path / OUTBOX_FILE).open("a") as file:
        file.write('{"number": 0}\n{"numb')
    store = FlakyStore()
    outbox = Outbox(tmp_path, store)
    outbox.add({"number": 1})
    assert outbox.close(wait_seconds=10) == 0
    assert store.taken == [0, 1]


def test_an_entry_that_is_refused_does_not_stop_those_after_it(tmp_path: Path) -> None:
    store = FlakyStore()
    store.refused = {1}
    outbox = Outbox(tmp_path, store)
    for number in range(3):
        outbox.add({"number": number})
    assert outbox.close(wait_seconds=10) == 0
    assert store.taken == [0, 2]


def test_what_a_store_refuses_is_told_kept_aside_and_tried_again_on_request(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = FlakyStore()
    store.refused = {1, 2}
    outbox = Outbox(tmp_path, store)
    for number in range(4):
        outbox.add({"op": "tags", "run": "r", "number": number})
    with caplog.at_level("WARNING"):
        outbox.close(wait_seconds=10)
    assert f"MLflow refused 2 entries, which are kept in {tmp_path / REFUSED_FILE}. The first: tags of r: refused" in (
        caplog.text
    )
    kept = [json.loads(line) for line in (tmp_path / REFUSED_FILE).read_text().splitlines()]
    assert [(each["entry"]["number"], each["reason"]) for each in kept] == [
        (1, "tags of r: refused"),
        (2, "tags of r: refused"),
    ]
    store.refused = set()
    outbox = Outbox(tmp_path, store)
    assert outbox.add_refused() == 2
    assert outbox.close(wait_seconds=10) == 0
    assert store.taken == [0, 3, 1, 2]
    assert not (tmp_path / REFUSED_FILE).exists()


def test_a_thread_that_dies_is_heard_of_and_its_entries_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clray.track.outbox.write_num_sent", fail)
    outbox = Outbox(tmp_path, FlakyStore())
    for number in range(3):
        outbox.add({"number": number})
    with caplog.at_level("WARNING"):
        left = outbox.close(wait_seconds=10)
    assert left > 0
    assert "writing to MLflow stopped (OSError: [Errno 28] No space left on device)" in caplog.text
    monkeypatch.undo()
    store = FlakyStore()
    assert Outbox(tmp_path, store).close(wait_seconds=10) == 0
    assert store.taken == [0, 1, 2]


def test_a_full_disk_leaves_no_half_line_between_entries(tmp_path: Path) -> None:
    store = FlakyStore()
    outbox = Outbox(tmp_path, store)
    outbox.add({"number": 0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        with pytest.raises(UserError, match=r"mlflow.outbox.jsonl: cannot be written \(File too large\); make room"):
            outbox.add({"number": 1})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    outbox.add({"number": 2})
    assert outbox.close(wait_seconds=10) == 0
    assert store.taken == [0, 2]
    assert [entry["number"] for entry in read_entries(tmp_path)] == [0, 2]


def test_two_hundred_damaged_outboxes_never_stop_the_entries_that_are_whole(tmp_path: Path) -> None:
    """Cut anywhere, or with garbage in a line: what is whole and not known to be sent arrives, in order, once."""
    whole = b"".join(json.dumps({"op": "tags", "run": "r", "number": n}).encode() + b"\n" for n in range(20))
    generator = np.random.default_rng(0)
    for case in range(200):
        folder = tmp_path / str(case)
        folder.mkdir()
        content, sent = bytearray(whole), str(generator.integers(25))
        if case % 3 == 0:
            del content[generator.integers(len(content)) :]
        elif case % 3 == 1:
            start = generator.integers(len(content))
            content[start : start + 10] = generator.bytes(10)
        else:
            sent = generator.bytes(generator.integers(4)).decode("latin-1")
        (folder / OUTBOX_FILE).write_bytes(content)
        (folder / SENT_FILE).write_text(sent)
        taken: list[dict] = []
        outbox = Outbox(folder, taken.append)
        outbox.add({"op": "tags", "run": "r", "number": 99})
        assert outbox.close(wait_seconds=10) == 0
        entries = read_entries(folder)
        assert taken == entries[len(entries) - len(taken) :]
        assert taken[-1]["number"] == 99
        assert len(taken) >= len(entries) - read_num_sent_text(sent)


def read_num_sent_text(text: str) -> int:
    try:
        return max(0, int(text))
    except ValueError:
        return 0


def write_until_killed(folder: Path) -> None:
    """Open and fill an outbox for ever; each entry is announced once it has been added."""
    number = len(read_entries(folder))
    while True:
        outbox = Outbox(folder, lambda _: None)
        for _ in range(20):
            outbox.add({"op": "tags", "run": "r", "number": number})
            number += 1
            print(number, flush=True)
        outbox.close(1)


@pytest.mark.fault
def test_no_entry_is_lost_by_kills_at_any_moment(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tests.track.test_outbox import write_until_killed; "
        "write_until_killed(Path(sys.argv[1]))"
    )
    for seed in range(4):
        process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05 + 0.13 * seed)
        process.kill()
        announced = int(process.stdout.read().split()[-1])
        process.wait()
        numbers = [entry["number"] for entry in read_entries(tmp_path)]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= announced


def test_what_is_refused_again_while_it_is_tried_again_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise ValueError("no")

    outbox = Outbox(tmp_path, refuse)
    outbox.add({"op": "tags", "run": "r", "values": {"a": "b"}})
    assert outbox.close(10) == 0
    again = Outbox(tmp_path, refuse)
    add = again.add

    def add_slowly(entry: dict) -> None:
        add(entry)
        time.sleep(0.2)  # longer than the thread takes

    monkeypatch.setattr(again, "add", add_slowly)
    assert again.add_refused() == 1
    assert again.close(10) == 0
    assert len((tmp_path / REFUSED_FILE).read_text().splitlines()) == 1
