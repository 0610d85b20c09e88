"""Entries reach the store in order, each at least once, whatever the store does meanwhile."""

import threading
import time
from pathlib import Path

from clray.track.outbox import OUTBOX_FILE, Outbox, Unreachable, read_num_sent


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
