"""What training, checks and builds ask of images, wherever they lie: the port that every kind of them answers."""

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from jaxtyping import Int
from PIL import Image
from torch import Tensor

from clray.config.sections import DataConfig
from clray.data.sampling import uniform_order
from clray.errors import UserError

Batch = tuple[Tensor, Tensor]
"""Images, uint8 [B, C, H, W], or vectors, float32 [B, dim, 1, 1]; and their dataset indices, int64 [B]."""
Decode = Callable[[], np.ndarray]
"""Gives the pixels of one image, uint8 [C, H, W]."""
OnCount = Callable[[int], None]
"""Hears of how many images were looked at."""
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Ready:
    """Images in the form in which they are trained on.

    Attributes:
        kept: the indices of those that can be decoded, int64; None where these are all.
        reasons: why the others cannot.
    """

    images: "Images"
    kept: Int[np.ndarray, " m"] | None = None
    reasons: tuple[str, ...] = ()


class Images(Protocol):
    """N images of uint8 pixels: an array, encoded in memory or in files, or streamed; or vectors in their place."""

    @property
    def channels(self) -> int:
        """Of every image once decoded."""
        ...

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of every image once decoded; None where that is not known before."""
        ...

    @property
    def is_decoded(self) -> bool:
        """Whether the pixels are at hand; others are decoded while training."""
        ...

    @property
    def is_sequential(self) -> bool:
        """Whether images far apart cannot be had at once, as they are read in runs."""
        ...

    @property
    def has_pixels(self) -> bool:
        """Whether these are images, and no vectors in their place, which are float32 [N, dim, 1, 1]."""
        ...

    def __len__(self) -> int: ...

    def name(self, index: int) -> str:
        """How messages name an image: by its file or row."""
        ...

    def names(self) -> Sequence[str]:
        """The names of all images; empty where they lie nowhere by name."""
        ...

    def select(self, indices: Int[np.ndarray, " m"]) -> Self:
        """The images at `indices`, in that order."""
        ...

    def shards(self, world_size: int) -> list[Int[np.ndarray, " m"]]:
        """The indices of each worker, ascending; every image belongs to exactly one."""
        ...

    def order(
        self, indices: Int[np.ndarray, " m"], generator: np.random.Generator, config: DataConfig
    ) -> Int[np.ndarray, " m"]:
        """A worker's indices in a random order in which they can be read."""
        ...

    def batches(self, chunks: list[Int[np.ndarray, " b"]], config: DataConfig) -> Iterator[Batch]:
        """The images at each of `chunks`, in that order."""
        ...

    def each(self, indices: Int[np.ndarray, " m"]) -> Iterator[np.ndarray]:
        """The pixels of one image after the other, each decoded when it is asked for.

        Raises:
            BadImageError: for an image that cannot be decoded.
        """
        ...

    def ready(self, config: DataConfig) -> Ready:
        """Decode what fits in memory, and find what cannot be decoded where that is asked for or cheap.

        Raises:
            BadImageError: for the first bad image where `data.on_bad_image` is "error".
            UserError: images of different sizes, or of no known size, without `data.image_size`.
        """
        ...

    def bad(self, num_threads: int, on_count: OnCount | None) -> list[str]:
        """Decode every image; why those that cannot be decoded cannot."""
        ...

    def notes(self) -> list[str]:
        """What is no error but should be known of the pixels."""
        ...

    def encode(self, index: int, size: int | None) -> bytes:
        """An image as it is encoded, or resized and encoded anew; raises BadImageError where it cannot be decoded."""
        ...


class DecodedLater:
    """What images have in common that are decoded when they are asked for: RGB, of one size where that is set."""

    def decoding(self, num_held: int) -> AbstractContextManager[Callable[[int], Decode]]:
        """What makes the decoder of an image; where these are read in runs, so many runs are held at a time."""
        raise NotImplementedError

    def each(self, indices: Int[np.ndarray, " m"]) -> Iterator[np.ndarray]:
        """The pixels of one image after the other; raises BadImageError for one that cannot be decoded."""
        with self.decoding(1) as decoder:
            for index in indices.tolist():
                yield decoder(index)()

    @property
    def image_size(self) -> int | None:
        """Height and width after decoding, where they are set."""
        raise NotImplementedError

    @property
    def channels(self) -> int:
        return 3

    @property
    def size(self) -> tuple[int, int] | None:
        return None if self.image_size is None else (self.image_size, self.image_size)

    @property
    def is_decoded(self) -> bool:
        return False

    @property
    def has_pixels(self) -> bool:
        return True


class AtHand:
    """What images have in common whose pixels need no decoding: any of them can be had at once."""

    @property
    def is_decoded(self) -> bool:
        return True

    @property
    def is_sequential(self) -> bool:
        return False

    @property
    def has_pixels(self) -> bool:
        return True

    def __len__(self) -> int:
        raise NotImplementedError

    def shards(self, world_size: int) -> list[Int[np.ndarray, " m"]]:
        return every_nth(len(self), world_size)

    def order(
        self, indices: Int[np.ndarray, " m"], generator: np.random.Generator, config: DataConfig
    ) -> Int[np.ndarray, " m"]:
        return uniform_order(indices, generator)

    def ready(self: Images, config: DataConfig) -> Ready:
        return Ready(self)

    def bad(self, num_threads: int, on_count: OnCount | None) -> list[str]:
        return []

    def notes(self) -> list[str]:
        return []


def require_image_size(config: DataConfig) -> None:
    """Raise UserError where images that are decoded later have no size yet."""
    if config.image_size is None:
        raise UserError("data.image_size is required for images decoded while training; set it in pixels")


def every_nth(num_images: int, world_size: int) -> list[Int[np.ndarray, " m"]]:
    """Shards whose sizes differ by at most one."""
    return [np.arange(rank, num_images, world_size) for rank in range(world_size)]


def save(image: Image.Image, form: str) -> bytes:
    """An image as PNG, or as JPEG of quality 95."""
    buffer = io.BytesIO()
    image.save(buffer, form, **({"quality": JPEG_QUALITY} if form == "JPEG" else {}))
    return buffer.getvalue()
