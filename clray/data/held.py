"""Images on the device where they are trained on, so that a batch is indexed there; nothing of this on a CPU."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from clray.config.sections import DataConfig
from clray.data.images.port import Batch
from clray.data.samples import Samples
from clray.data.transfer import StreamedCopies, one_ahead, to_device

ROWS_PER_COPY = 4096


def held_on(device: torch.device, data: Samples, config: DataConfig) -> Samples:
    """The samples with their images on a GPU, where they are decoded and fit in `data.device_memory_fraction`."""
    if device.type != "cuda" or not data.images.is_decoded:
        return data
    return held_within(torch.cuda.mem_get_info(device)[0] * config.device_memory_fraction, device, data, config)


def held_within(num_bytes: float, device: torch.device, data: Samples, config: DataConfig) -> Samples:
    """The samples with their images on the device, where these take at most so many bytes."""
    rows = np.arange(len(data))
    chunks = [rows[start : start + ROWS_PER_COPY] for start in range(0, len(rows), ROWS_PER_COPY)]
    held: Tensor | None = None
    for images, indices in data.images.batches(chunks, config):
        if held is None:
            if len(data) * images[0].nbytes > num_bytes:
                return data
            held = images.new_empty((len(data), *images.shape[1:]), device=device)
        held[indices[0] : indices[-1] + 1] = images
    return replace(data, held=held)


def held_batches(held: Tensor, chunks: list[np.ndarray]) -> Iterator[Batch]:
    """The images at each of `chunks`, on their device, and their indices, on the host."""
    for chunk in chunks:
        yield held[to_device(chunk, held.device)], torch.from_numpy(chunk)


def brought_to(device: torch.device, batches: Iterator[Batch]) -> Iterator[Batch]:
    """The batches with their images on a GPU, each copied while the one before it is trained on; as they are else."""
    return one_ahead(batches, StreamedCopies(device)) if device.type == "cuda" else batches
