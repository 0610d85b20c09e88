"""Images decoded once into a file of the cache, which all runs of a node map: `data.store: memmap`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from jaxtyping import Int

from clray.config.sections import DataConfig
from clray.data.images.ahead import decoded_batches
from clray.data.images.array import ArrayImages
from clray.data.images.encoded import EncodedImages
from clray.data.images.port import AtHand, Batch, Decode, Images, Ready, require_image_size
from clray.data.images.store import Store
from clray.data.images.streamed import StreamedImages
from clray.errors import UserError

NUM_READERS = 2
"""Threads that copy images ahead, so that a step does not wait for the disk."""


def ready_images(images: Images, config: DataConfig) -> Ready:
    """The images as `Images.ready`; with `data.store: memmap` those that do not fit in memory come from a store.

    Raises:
        BadImageError, UserError: as `Images.ready` and `Store.make`.
    """
    if config.store != "memmap" or not isinstance(images, EncodedImages | StreamedImages) or images.fits(config):
        return images.ready(config)
    require_image_size(config)
    store = Store.of(images, config)
    bad = store.make()
    good = np.setdiff1d(np.arange(len(images)), np.array([*bad], np.int64))
    if len(good) == 0:
        raise UserError(f"data: none of the {len(images)} images can be decoded; the first: {bad[0]}")
    return Ready(StoredImages(store, good), good if bad else None, tuple(bad[index] for index in sorted(bad)))


def notes_on_store(images: Sequence[Images]) -> list[str]:
    """Where decoded images lie on the disk, and what they take there."""
    stores = [each.store for each in images if isinstance(each, StoredImages)]
    if not stores:
        return []
    gib = sum(store.num_bytes for store in stores) / 2**30
    return [f"decoded images are read from {stores[0].path.parent}, where they take {gib:.3g} GiB (data.store=memmap)"]


@dataclass(frozen=True)
class StoredImages(AtHand):
    """Images of a store; holds its place only, and a node that lacks the file makes it.

    Attributes:
        rows: the row of each image in the store, int64 [N].
    """

    store: Store
    rows: Int[np.ndarray, " n"]

    @property
    def channels(self) -> int:
        return self.store.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        return self.store.shape[2:]

    def __len__(self) -> int:
        return len(self.rows)

    def name(self, index: int) -> str:
        return self.store.source.name(int(self.rows[index]))

    def names(self) -> Sequence[str]:
        names = self.store.source.names()
        return [names[row] for row in self.rows.tolist()]

    def select(self, indices: Int[np.ndarray, " m"]) -> "StoredImages":
        return replace(self, rows=self.rows[indices])

    def batches(self, chunks: list[np.ndarray], config: DataConfig) -> Iterator[Batch]:
        """Copied ahead in threads."""
        pixels = self.store.pixels()
        readers = NUM_READERS if config.num_decoders is None else min(NUM_READERS, config.num_decoders)
        config = config.model_copy(update={"num_decoders": readers})

        def reading(index: int) -> Decode:
            self.store.keep()  # an epoch may take hours
            return partial(_row, pixels, int(self.rows[index]))

        yield from decoded_batches(chunks, reading, self.store.shape[1:], config)

    def each(self, indices: Int[np.ndarray, " m"]) -> Iterator[np.ndarray]:
        pixels = self.store.pixels()
        return (pixels[self.rows[index]] for index in indices)

    def encode(self, index: int, size: int | None) -> bytes:
        return ArrayImages(np.array(self.store.pixels()[self.rows[index]])[None]).encode(0, size)


def _row(pixels: np.ndarray, row: int) -> np.ndarray:
    image: np.ndarray = pixels[row]
    return image
