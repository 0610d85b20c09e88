"""Checkpoints are written while training goes on: a copy of the state is taken, and a thread writes it."""

import copy
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor


class HostTree:
    """A tree of tensors and plain values as it is when this is made, on its way to the host.

    What follows on the device waits for the copies, and the host for none of them until it asks for the tree.
    """

    def __init__(self, tree: Any) -> None:
        self._done: torch.cuda.Event | None = None
        self._tree = self._copied(tree)
        if self._done is not None:
            self._done.record()

    def result(self) -> Any:
        """The copy; waits for it."""
        if self._done is not None:
            self._done.synchronize()
        return self._tree

    def _copied(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            return self._copied_tensor(value.detach())
        if isinstance(value, dict):
            copied = copy.copy(value)  # which keeps what a `state_dict` carries beside its tensors
            for key, each in value.items():
                copied[key] = self._copied(each)
            return copied
        if isinstance(value, list):
            return [self._copied(each) for each in value]
        if isinstance(value, tuple):
            return tuple(self._copied(each) for each in value)
        return value

    def _copied_tensor(self, value: Tensor) -> Tensor:
        if value.device.type == "cpu":
            return value.clone()
        if value.device.type != "cuda":
            return value.cpu()
        if self._done is None:
            self._done = torch.cuda.Event()
        on_host = torch.empty_like(value, device="cpu", pin_memory=True)
        on_host.copy_(value, non_blocking=True)
        return on_host


class Writer:
    """Does one thing after another in a thread; at most one is under way."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._under_way: Future[Any] | None = None

    @property
    def is_idle(self) -> bool:
        return self._under_way is None or self._under_way.done()

    def begin(self, write: Callable[[], Any]) -> None:
        """Start it once what is under way is done; raises what that raised."""
        self.wait()
        self._under_way = self._thread.submit(write)

    def wait(self) -> None:
        """Wait for what is under way, and raise what it raised."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()
