"""Batches of images: a fixed shard per worker, in the order given, and an ordered pass for embedding."""

from collections.abc import Iterable, Iterator

import numpy as np

from clray.config.sections import DataConfig
from clray.data.held import held_batches
from clray.data.images.port import Batch
from clray.data.samples import Samples


def shard_indices(data: Samples, world_size: int) -> list[np.ndarray]:
    """The dataset indices of each worker, ascending; every sample belongs to exactly one.

    Sizes differ by at most one, but where images stay in Parquet files: there a worker has whole row groups.
    """
    return data.images.shards(world_size)


def num_steps(shards: list[np.ndarray], global_batch_size: int) -> int:
    """Steps per epoch, the same on every worker: the smallest shard decides, and an incomplete batch is left out."""
    return max(1, min(map(len, shards)) // (global_batch_size // len(shards)))


def fewest_steps(data: Samples, sizes: Iterable[int], global_batch_size: int) -> int:
    """Steps per epoch that any of these numbers of workers can take, so that a run keeps them when it loses some."""
    return min(num_steps(shard_indices(data, size), global_batch_size) for size in sizes)


def training_batches(
    data: Samples, order: np.ndarray, *, batch_size: int, steps: int, config: DataConfig
) -> Iterator[Batch]:
    """`steps` batches of one worker, in this order."""
    chunks = [order[step * batch_size : (step + 1) * batch_size] for step in range(steps)]
    return _batches(data, chunks, config)


def ordered_batches(data: Samples, indices: np.ndarray, *, batch_size: int, config: DataConfig) -> Iterator[Batch]:
    """The images at `indices`, each once, in that order."""
    chunks = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    return _batches(data, chunks, config)


def _batches(data: Samples, chunks: list[np.ndarray], config: DataConfig) -> Iterator[Batch]:
    return data.images.batches(chunks, config) if data.held is None else held_batches(data.held, chunks)
