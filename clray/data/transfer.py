"""Copies between host and training device that neither of them waits for; on the CPU nothing is copied."""

import warnings
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from clray.data.images.port import Batch


def view(values: np.ndarray) -> Tensor:
    """The array as a tensor, not copied and for reading alone: what Ray's object store shares is read by others too."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def to_device(values: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """Host values on the device; to a GPU by way of pinned memory, from which it copies while the host goes on."""
    tensor = values if isinstance(values, Tensor) else view(values)
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
        elif isinstance(values, Tensor) and values.device.type != "cpu":
            values = values.cpu()
        self._values = values.numpy() if isinstance(values, Tensor) else values

    def ready(self) -> bool:
        """Whether `result` would return at once."""
        return self._done is None or self._done.query()

    def result(self) -> np.ndarray:
        """The values; waits for them."""
        if self._done is not None:
            self._done.synchronize()
        return self._values


def one_ahead(batches: Iterable[Batch], copies: "Copies") -> Iterator[Batch]:
    """The batches with their images on the device, where each is copied while the one before it is trained on."""
    ahead: tuple[Any, Tensor] | None = None
    for images, indices in batches:
        begun = copies.begin(images), indices
        if ahead is not None:
            yield copies.end(ahead[0]), ahead[1]
        ahead = begun
    if ahead is not None:
        yield copies.end(ahead[0]), ahead[1]


class Copies(Protocol):
    """Copies of images to a device in two halves."""

    def begin(self, images: Tensor) -> Any:
        """Start a copy, and return what `end` takes."""
        ...

    def end(self, begun: Any) -> Tensor:
        """The copy, which what the device is told to do next may use."""
        ...


class StreamedCopies:
    """Copies from pinned memory in a queue of the GPU's that is theirs alone, beside the one that trains."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def begin(self, images: Tensor) -> tuple[Tensor, torch.cuda.Event]:
        """Returns at once."""
        with torch.cuda.stream(self.stream):
            copy = to_device(images, self.device)
            done = torch.cuda.Event()
            done.record(self.stream)
        return copy, done

    def end(self, begun: tuple[Tensor, torch.cuda.Event]) -> Tensor:
        """The GPU waits for the copy, the host does not."""
        (copy, done), training = begun, torch.cuda.current_stream(self.device)
        training.wait_event(done)
        # Its memory is used again only after what trains on it.
        copy.record_stream(training)
        return copy
