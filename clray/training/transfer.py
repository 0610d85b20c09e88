"""Copies between host and training device that neither of them waits for; on the CPU nothing is copied."""

import numpy as np
import torch
from torch import Tensor


def to_device(values: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """Host values on the device; to a GPU by way of pinned memory, from which it copies while the host goes on."""
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


class HostCopy:
    """Values on their way to the host, as they are when this is made."""

    def __init__(self, values: Tensor | np.ndarray) -> None:
        """Args: what nobody writes to until the copy is there; what lies on the host already is not copied."""
        self._done: torch.cuda.Event | None = None
        if isinstance(values, Tensor) and values.device.type == "cuda":
            on_host = torch.empty_like(values, device="cpu", pin_memory=True)
            on_host.copy_(values, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record()
            values = on_host
        self._values = values.numpy() if isinstance(values, Tensor) else values

    def ready(self) -> bool:
        """Whether `result` would return at once."""
        return self._done is None or self._done.query()

    def result(self) -> np.ndarray:
        """The values; waits for them."""
        if self._done is not None:
            self._done.synchronize()
        return self._values
