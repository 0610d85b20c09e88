"""Batches of images: a fixed shard per worker, in the order given, and an ordered pass for embedding.

Decoded images are indexed in place; encoded ones are decoded in a DataLoader's processes, those that stay in Parquet
files in threads, row group by row group.
"""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from clray.config.sections import DataConfig
from clray.data.images.encoded import EncodedImages
from clray.data.images.streamed import StreamedImages
from clray.data.load import ImageSet

Batch = tuple[Tensor, Tensor]
"""Images, uint8 [B, C, H, W], and their dataset indices, int64 [B]."""


def shard_indices(data: ImageSet, world_size: int) -> list[np.ndarray]:
    """The dataset indices of each worker, ascending; every sample belongs to exactly one.

    Sizes differ by at most one, but where images stay in Parquet files: there a worker has whole row groups.
    """
    if not isinstance(data.images, StreamedImages):
        return [np.arange(rank, len(data), world_size) for rank in range(world_size)]
    blocks = data.images.blocks()
    ends = np.cumsum([len(block) for block in blocks])
    cuts = np.searchsorted(ends, [len(data) * rank / world_size for rank in range(1, world_size)], side="right")
    parts = np.split(np.arange(len(blocks)), cuts)
    return [np.concatenate([np.empty(0, np.int64), *(blocks[i] for i in part)]) for part in parts]


def num_steps(shards: list[np.ndarray], global_batch_size: int) -> int:
    """Steps per epoch, the same on every worker: the smallest shard decides, and an incomplete batch is left out."""
    return max(1, min(map(len, shards)) // (global_batch_size // len(shards)))


def training_batches(
    data: ImageSet, order: np.ndarray, *, batch_size: int, steps: int, config: DataConfig
) -> Iterator[Batch]:
    """`steps` batches of one worker, in this order."""
    return _read(data, [order[step * batch_size : (step + 1) * batch_size] for step in range(steps)], config)


def ordered_batches(data: ImageSet, indices: np.ndarray, *, batch_size: int, config: DataConfig) -> Iterator[Batch]:
    """The images at `indices`, each once, in that order."""
    chunks = [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    return _read(data, chunks, config)


def _read(data: ImageSet, chunks: list[np.ndarray], config: DataConfig) -> Iterator[Batch]:
    if isinstance(data.images, StreamedImages):
        # A batch may begin in one set of row groups and end in the next.
        num_buffered = config.shuffle_row_groups + 1
        for pixels, rows in data.images.batches(chunks, num_threads=config.num_decoders, num_buffered=num_buffered):
            yield torch.from_numpy(pixels), torch.from_numpy(rows)
        return
    if isinstance(data.images, EncodedImages):
        loader = DataLoader(
            _Decoder(data.images),
            batch_sampler=[chunk.tolist() for chunk in chunks],
            num_workers=config.num_decoders,
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
