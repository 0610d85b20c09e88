"""Batches of images: a fixed shard per worker, in the order given, and an ordered pass for embedding.

Decoded images are indexed in place; encoded ones are decoded in a DataLoader's processes.
"""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from clray.data.datasets import ImageSet
from clray.data.images import EncodedImages

Batch = tuple[Tensor, Tensor]
"""Images, uint8 [B, C, H, W], and their dataset indices, int64 [B]."""


def shard_indices(num_samples: int, rank: int, world_size: int) -> np.ndarray:
    """The dataset indices of one worker: every sample belongs to exactly one, and sizes differ by at most one."""
    return np.arange(rank, num_samples, world_size)


def num_steps(num_samples: int, global_batch_size: int, world_size: int) -> int:
    """Steps per epoch, the same on every worker: the smallest shard decides, and an incomplete batch is left out."""
    return max(1, (num_samples // world_size) // (global_batch_size // world_size))


def training_batches(
    data: ImageSet, order: np.ndarray, *, batch_size: int, steps: int, num_decoders: int
) -> Iterator[Batch]:
    """`steps` batches of one worker, in this order."""
    return _read(data, [order[step * batch_size : (step + 1) * batch_size] for step in range(steps)], num_decoders)


def ordered_batches(data: ImageSet, indices: np.ndarray, *, batch_size: int, num_decoders: int) -> Iterator[Batch]:
    """The images at `indices`, each once, in that order."""
    chunks = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    return _read(data, chunks, num_decoders)


def _read(data: ImageSet, chunks: list[np.ndarray], num_decoders: int) -> Iterator[Batch]:
    if isinstance(data.images, EncodedImages):
        loader = DataLoader(
            _Decoder(data.images),
            batch_sampler=[chunk.tolist() for chunk in chunks],
            num_workers=num_decoders,
            collate_fn=_collate,
        )
        yield from loader
        return
    with warnings.catch_warnings():
        # Arrays from Ray's object store are read-only; nothing here writes to them.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        pixels = torch.from_numpy(data.images)
    for chunk in chunks:
        rows = torch.from_numpy(chunk)
        yield pixels[rows], rows


class _Decoder(torch.utils.data.Dataset):
    def __init__(self, images: EncodedImages) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return self.images.decode(index), index


def _collate(samples: list[tuple[np.ndarray, int]]) -> Batch:
    return torch.from_numpy(np.stack([image for image, _ in samples])), torch.tensor([index for _, index in samples])
