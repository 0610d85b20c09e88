"""Batches decoded ahead in threads, straight into the memory from which they go to the device.

Threads and no processes: PIL decodes without the interpreter lock, of which an image takes 0.1 ms, so that a dozen
threads keep up. They start at once, hand nothing through pipes, and are safe beside Ray's and CUDA's own.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Int

from clray.config.sections import DataConfig
from clray.data.images.port import Batch, Decode

BATCHES_AHEAD = 3
IMAGES_PER_TASK = 8
MIN_DECODERS = 2


def decoders_of(config: DataConfig, num_cpus: float) -> int:
    """Threads that decode beside a worker of so many CPUs: `data.num_decoders`, or one a CPU and two at least."""
    return max(MIN_DECODERS, int(num_cpus)) if config.num_decoders is None else config.num_decoders


def decoded_batches(
    chunks: Iterable[Int[np.ndarray, " b"]],
    decoder: Callable[[int], Decode],
    shape: tuple[int, int, int],
    config: DataConfig,
    *,
    is_pinned: bool = True,
) -> Iterator[Batch]:
    """The images at each of `chunks`, in that order.

    Args:
        decoder: makes what decodes an image; called in order, in the thread of the caller.
        shape: channels, height and width of every image.
        is_pinned: whether the batches go to a GPU, where there is one.

    Raises:
        BadImageError: for an image that cannot be decoded, when its batch comes.
    """
    # A worker's process was given as many threads as Ray gave it CPUs.
    num_threads = decoders_of(config, torch.get_num_threads())
    if num_threads == 0:
        for chunk in chunks:
            batch = _empty(chunk, shape, is_pinned=is_pinned)
            _fill(batch.numpy(), [decoder(int(index)) for index in chunk])
            yield batch, torch.from_numpy(chunk)
        return
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="decoder")
    ahead: deque[tuple[torch.Tensor, np.ndarray, list[Future[None]]]] = deque()
    try:
        for chunk in chunks:
            batch = _empty(chunk, shape, is_pinned=is_pinned)
            images = [decoder(int(index)) for index in chunk]
            parts = range(0, len(chunk), IMAGES_PER_TASK)
            pixels = batch.numpy()
            tasks = [
                pool.submit(_fill, pixels[at : at + IMAGES_PER_TASK], images[at : at + IMAGES_PER_TASK]) for at in parts
            ]
            ahead.append((batch, chunk, tasks))
            if len(ahead) > BATCHES_AHEAD:
                yield _awaited(*ahead.popleft())
        while ahead:
            yield _awaited(*ahead.popleft())
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _empty(chunk: np.ndarray, shape: tuple[int, int, int], *, is_pinned: bool) -> torch.Tensor:
    """In pinned memory beside a GPU, which then copies it while it computes."""
    return torch.empty((len(chunk), *shape), dtype=torch.uint8, pin_memory=is_pinned and torch.cuda.is_available())


def _fill(pixels: np.ndarray, images: list[Decode]) -> None:
    for at, decode in enumerate(images):
        pixels[at] = decode()


def _awaited(batch: torch.Tensor, chunk: np.ndarray, tasks: list[Future[None]]) -> Batch:
    for task in tasks:
        task.result()
    return batch, torch.from_numpy(chunk)
