"""Times of an encoder that a machine takes once: its folder for caches keeps them, by machine, encoder and batch."""

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from clray.config import Config
from clray.data.remote.local import cache_root
from clray.folder_lock import in_turn
from clray.model.encoder import ContrastiveModel

Seconds = dict[str, float]
"""Of what is timed, by its name."""


class MachineTimes:
    """The times of one kind for one encoder and batch on this machine."""

    def __init__(
        self,
        kind: str,
        names: Sequence[str],
        config: Config,
        model: ContrastiveModel,
        shape: tuple[int, ...],
        **more: Any,
    ) -> None:
        """Say what is timed.

        Args:
            kind: folder below the root of the cache.
            names: of the times.
            shape: of a batch of views.
            more: what else they depend on, as plain values.
        """
        self.names = names
        self.key = {
            "cpu": cpu_name(),
            "torch": torch.__version__,
            "encoder": config.encoder.model_dump(mode="json"),
            "parameters": [list(each.shape) for each in model.parameters()],
            "images": list(shape),
            **more,
        }
        digest = hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()[:24]
        self.path = cache_root(config.data) / kind / f"{digest}.json"

    def known(self) -> Seconds | None:
        """Those that a process of this machine has taken before."""
        with suppress(OSError, ValueError, TypeError, KeyError):
            found = json.loads(self.path.read_text(encoding="utf-8"))["seconds"]
            if all(isinstance(found[name], float) and found[name] > 0 for name in self.names):
                return {name: found[name] for name in self.names}
        return None

    def take(self, measure: Callable[[], Seconds]) -> Seconds:
        """Those that are known, or else measured now and kept."""
        found = self.known()
        if found is not None:
            return found
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Trials that start together would time each other; those that wait find the times of the first.
            with in_turn(self.path.with_suffix(".lock")):
                seconds = self.known() or measure()
                partial = self.path.with_suffix(f".{os.getpid()}.partial")
                partial.write_text(json.dumps({"seconds": seconds, **self.key}), encoding="utf-8")
                partial.replace(self.path)
        except OSError:  # a folder that cannot be written costs the time for each run
            return measure()
        return seconds


def embed_and_back(model: ContrastiveModel, images: torch.Tensor) -> float:
    """Seconds that this thread computes for a forward and backward pass."""
    start = time.thread_time()
    outputs = model(images)
    parts = [outputs.h, outputs.z, *([] if outputs.second is None else [outputs.second])]
    torch.stack([each.square().sum() for each in parts]).sum().backward()
    for parameter in model.parameters():
        parameter.grad = None
    return max(time.thread_time() - start, 1e-9)


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block torch computes in the calling thread alone."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(num_threads)


def cpu_name() -> str:
    """The CPU's model, and its flags where the system tells them; equal on equal machines."""
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        told = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        flags = told.get("flags", told.get("Features", ""))
        return f"{told.get('model name', platform.machine())}, flags {hashlib.sha256(flags.encode()).hexdigest()[:12]}"
    return f"{platform.machine()} {platform.processor()}"
