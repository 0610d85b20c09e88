"""Decoded images in one array, which Ray's object store shares between the workers of a node."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image

from clray.config.sections import DataConfig
from clray.data.images.port import AtHand, Batch, save
from clray.data.transfer import view


@dataclass(frozen=True)
class ArrayImages(AtHand):
    """Pixels, uint8 [N, C, H, W].

    Attributes:
        rows: the names of the images, where they were decoded from files or rows.
    """

    pixels: np.ndarray
    rows: Sequence[str] = ()

    @property
    def channels(self) -> int:
        return int(self.pixels.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[2], self.pixels.shape[3]

    def __len__(self) -> int:
        return len(self.pixels)

    def name(self, index: int) -> str:
        return self.rows[index] if self.rows else f"image {index}"

    def names(self) -> Sequence[str]:
        return self.rows

    def select(self, indices: Int[np.ndarray, " m"]) -> "ArrayImages":
        return ArrayImages(self.pixels[indices], [self.rows[i] for i in indices] if self.rows else ())

    def batches(self, chunks: list[np.ndarray], config: DataConfig) -> Iterator[Batch]:
        pixels = view(self.pixels)
        for chunk in chunks:
            rows = torch.from_numpy(chunk)
            yield pixels[rows], rows

    def each(self, indices: Int[np.ndarray, " m"]) -> Iterator[np.ndarray]:
        return (self.pixels[index] for index in indices)

    def encode(self, index: int, size: int | None) -> bytes:
        pixels = self.pixels[index]
        image = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
        return save(image if size is None else image.resize((size, size)), "PNG")
