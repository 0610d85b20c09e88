"""Time on a GPU is what passes in its own queue, and nobody waits for it but whoever asks."""

import time

import pytest
import torch

from clray.training.stopwatch import Stopwatch


class Queue:
    """A GPU that takes 3 ms for each order, and knows the time in its queue."""

    def __init__(self) -> None:
        self.now, self.num_waits = 0.0, 0


def test_a_gpu_is_timed_by_events_and_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Queue()

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            self.at: float | None = None

        def record(self) -> None:
            self.at = gpu.now

        def synchronize(self) -> None:
            gpu.num_waits += 1

        def elapsed_time(self, other: "Event") -> float:
            assert gpu.num_waits, "only what has come to pass has a time"
            return other.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    watch = Stopwatch(torch.device("cuda"), seconds=1.0)
    for _ in range(4):
        with watch.running():
            gpu.now += 3.0
        gpu.now += 100.0
    assert gpu.num_waits == 0
    assert watch.seconds == pytest.approx(1.012)
    assert watch.seconds == pytest.approx(1.012), "no part counts twice"
    assert gpu.num_waits == 1


def test_a_cpu_is_timed_by_the_clock() -> None:
    watch = Stopwatch(torch.device("cpu"), seconds=1.0)
    with watch.running():
        time.sleep(0.01)
    assert 1.01 <= watch.seconds < 2.0
