"""Tiles of images on sheets: right images, whole, and no more bytes than there is room for."""

import io

import numpy as np
import pytest
from PIL import Image

from clray.config.sections import DataConfig
from clray.data.images.array import ArrayImages
from clray.data.samples import Samples
from clray.report.look.sprites import GREY, TILES, TILES_A_SIDE, draw_sprites, fitted

DRAW = np.random.default_rng(0)


def samples(pixels: np.ndarray) -> Samples:
    return Samples(ArrayImages(pixels), np.zeros(len(pixels), np.int32), {})


def tile(sheets: tuple[bytes, ...], side: int, place: int) -> np.ndarray:
    sheet = np.asarray(Image.open(io.BytesIO(sheets[place // TILES])).convert("RGB"))
    top, left = side * (place % TILES // TILES_A_SIDE), side * (place % TILES_A_SIDE)
    return sheet[top : top + side, left : left + side]


def test_each_tile_shows_its_image() -> None:
    values = DRAW.integers(0, 256, 300, dtype=np.uint8)
    rows = DRAW.permutation(300)[:200]
    found = draw_sprites(
        samples(np.broadcast_to(values[:, None, None, None], (300, 1, 8, 8))), rows, DataConfig(), most_bytes=10**6
    )  # fmt: skip
    assert (found.side, len(found.sheets)) == (16, 2)
    shown = [int(tile(found.sheets, 16, place).mean()) for place in range(200)]
    assert shown == values[rows].tolist()


@pytest.mark.parametrize("room", [300, 900, 4000])
def test_sheets_take_no_more_bytes_than_there_is_room_for(room: int) -> None:
    smooth = np.kron(DRAW.integers(0, 256, (150, 3, 8, 8)), np.ones((1, 1, 12, 12))).astype(np.uint8)
    found = draw_sprites(samples(smooth), np.arange(150), DataConfig(), most_bytes=150 * room)
    assert found.num_bytes <= 150 * room
    assert found.side == (96 if room == 4000 else found.side)


@pytest.mark.parametrize(("height", "width"), [(1, 4000), (4000, 1), (3, 5), (700, 20), (96, 96)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_of_any_shape_is_shown_whole(height: int, width: int, channels: int) -> None:
    shown = fitted(np.full((channels, height, width), 250, np.uint8), 32)
    assert shown.shape == (32, 32, 3)
    assert (shown == 250).any()
    bright = (shown > GREY).all(-1)
    across, down = bright.any(0).sum(), bright.any(1).sum()
    assert max(across, down) == 32
    assert (across >= down) == (width >= height)


def test_a_page_of_no_images_has_no_sheets() -> None:
    assert (
        draw_sprites(
            samples(np.zeros((1, 1, 2, 2), np.uint8)), np.empty(0, np.int64), DataConfig(), most_bytes=9
        ).sheets
        == ()
    )
