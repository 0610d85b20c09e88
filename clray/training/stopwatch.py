"""How long the device of a run was at something: a GPU works on after its orders are given."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Stopwatch:
    """Sums up the seconds of parts of an epoch; on a GPU by events in its own queue, read once, which waits for it."""

    def __init__(self, device: torch.device, seconds: float = 0.0) -> None:
        self._on_gpu, self._known = device.type == "cuda", seconds
        self._parts: list[tuple[Any, Any]] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around a part; nothing waits for anything."""
        start = self._mark()
        yield
        self._parts.append((start, self._mark()))

    @property
    def seconds(self) -> float:
        """Of all parts so far."""
        if self._on_gpu and self._parts:
            self._parts[-1][1].synchronize()
            self._known += sum(start.elapsed_time(stop) for start, stop in self._parts) / 1000
        else:
            self._known += sum(stop - start for start, stop in self._parts)
        self._parts.clear()
        return self._known

    def _mark(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
