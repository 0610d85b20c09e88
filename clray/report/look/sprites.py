"""Small pictures of images, many to a sheet, of a size and quality at which all of them fit into a page."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from clray.config.sections import DataConfig
from clray.data.loaders import ordered_batches
from clray.data.samples import Samples

TILES_A_SIDE = 12
TILES = TILES_A_SIDE**2
SIDES = (16, 32, 48, 64, 96)
"""Of a tile, in pixels; multiples of 16, so that no block of the encoder reaches into the next tile."""
QUALITIES = (85, 70, 50, 25)
LEAST_QUALITY = 50
"""Below it a smaller tile shows more."""
LOSSLESS_UP_TO = 16
BATCH = 256
GREY = 128


@dataclass(frozen=True)
class Sprites:
    """Sheets of `TILES_A_SIDE` by `TILES_A_SIDE` tiles of `side` pixels, in order; encoded as WebP."""

    side: int
    sheets: tuple[bytes, ...]

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.sheets))


def draw_sprites(samples: Samples, rows: np.ndarray, config: DataConfig, *, most_bytes: int) -> Sprites:
    """A tile for each of `rows`, in their order; none where the samples are vectors.

    Args:
        rows: of the samples, each at most once.
        most_bytes: that all sheets may take; tiles become smaller and coarser until they fit.
    """
    if len(rows) == 0 or not samples.images.has_pixels:
        return Sprites(SIDES[0], ())
    looked_at = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), TILES)).astype(np.int64))
    examples = [image for _, image in _read(samples, rows[looked_at], config)]
    side, quality = _size_and_quality(examples, 0.9 * most_bytes / len(rows))
    tiles = np.empty((len(rows), side, side, 3), np.uint8)
    for place, image in _read(samples, rows, config):
        tiles[place] = fitted(image, side)
    sheets = (encoded(tiles[start : start + TILES], quality) for start in range(0, len(rows), TILES))
    return Sprites(side, tuple(sheets))


def fitted(image: np.ndarray, side: int) -> np.ndarray:
    """An image, uint8 [C, H, W], whole and in its proportions, in the middle of a grey square [side, side, 3].

    One that is smaller than the square is enlarged without smoothing, so that its pixels stay what they are.
    """
    channels, height, width = image.shape
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    picture = Image.fromarray(image[0] if channels == 1 else image.transpose(1, 2, 0)).convert("RGB")
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BOX)
    tile = np.full((side, side, 3), GREY, np.uint8)
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    tile[top : top + size[1], left : left + size[0]] = np.asarray(picture)
    return tile


def encoded(tiles: np.ndarray, quality: int) -> bytes:
    """A sheet of up to 144 tiles, row by row, as WebP; without loss where they are as small as digits."""
    count, side = len(tiles), tiles.shape[1]
    num_rows = -(-count // TILES_A_SIDE)
    sheet = np.full((num_rows * TILES_A_SIDE, side, side, 3), GREY, np.uint8)
    sheet[:count] = tiles
    sheet = sheet.reshape(num_rows, TILES_A_SIDE, side, side, 3).transpose(0, 2, 1, 3, 4)
    picture = Image.fromarray(np.ascontiguousarray(sheet).reshape(num_rows * side, TILES_A_SIDE * side, 3))
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=quality, lossless=side <= LOSSLESS_UP_TO, method=4)
    return buffer.getvalue()


def _size_and_quality(examples: list[np.ndarray], room: float) -> tuple[int, int]:
    """The largest tile, no larger than it needs to be, and the best quality, at `room` bytes a tile."""
    size = max(max(image.shape[1:]) for image in examples)
    needed = min((side for side in SIDES if side >= size), default=SIDES[-1])
    for side in (side for side in reversed(SIDES) if side <= needed):
        tiles = np.stack([fitted(image, side) for image in examples])
        for quality in QUALITIES:
            is_last = side == SIDES[0]
            if (quality >= LEAST_QUALITY or is_last) and len(encoded(tiles, quality)) <= room * len(examples):
                return side, quality
    return SIDES[0], QUALITIES[-1]


def _read(samples: Samples, rows: np.ndarray, config: DataConfig) -> Iterator[tuple[int, np.ndarray]]:
    """Place in `rows` and pixels, uint8 [C, H, W], of each; read in ascending order, as files are."""
    order = np.argsort(rows, kind="stable")
    place = 0
    for images, _ in ordered_batches(samples, rows[order], batch_size=BATCH, config=config):
        for image in images.numpy():
            yield int(order[place]), image
            place += 1
