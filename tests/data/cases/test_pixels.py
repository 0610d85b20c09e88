"""Grey images of every depth: scaled by a rule of the mode, never of the single image."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clray.config.sections import DataConfig
from clray.data.images.decode import PixelRules, decode_image
from clray.data.load import load_dataset
from tests.conftest import REPOSITORY

CASES = REPOSITORY / "tests" / "cases" / "pixels"
RAMP = np.arange(256).reshape(16, 16)


def decoded(name: str, white: float | None = None) -> np.ndarray:
    return decode_image(CASES / name, PixelRules(white=white))[0].astype(int)


@pytest.mark.parametrize("name", ["ramp_8bit.png", "ramp_16bit.png", "ramp_float_unit.tiff"])
def test_the_same_ramp_is_the_same_in_every_depth(name: str) -> None:
    np.testing.assert_allclose(decoded(name), RAMP, atol=1)


@pytest.mark.parametrize(
    ("name", "mode_white", "own_white"),
    [
        ("ramp_12_in_16bit.png", 65535, 4095),
        ("ramp_16bit_max256.png", 65535, 256),
        ("ramp_int32.tiff", 2**31 - 1, 2**24),
    ],
)
def test_other_ramps_are_scaled_by_the_range_of_their_mode_or_the_white_that_is_named(
    name: str, mode_white: int, own_white: int
) -> None:
    values = np.asarray(Image.open(CASES / name), np.float64)
    np.testing.assert_array_equal(decoded(name), np.round(values * 255 / mode_white))
    np.testing.assert_allclose(decoded(name, own_white), RAMP, atol=1)


def test_a_dark_image_stays_dark() -> None:
    """Scaled by its own maximum, it would be white."""
    for pixels in (np.full((4, 4), 300, np.uint16), np.full((4, 4), 300 / 65535, np.float32)):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "TIFF")
        assert decode_image(buffer.getvalue()).max() == 1


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.array([[0, 255]], np.float32), r"mode F must be in 0\.\.1, got 0\.\.255; name the value of white"),
        (np.array([[-0.5, 1]], np.float32), r"mode F must be in 0\.\.1, got -0\.5\.\.1"),
        (np.array([[np.nan, 1]], np.float32), r"mode F must be in 0\.\.1, got nan"),
        (np.array([[-7, 1]], np.int32), r"mode I must be in 0\.\.2\.14748e\+09, got -7\.\.1"),
    ],
)
def test_what_would_be_clipped_is_refused(pixels: np.ndarray, message: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "TIFF")
    with pytest.raises(ValueError, match=message):
        decode_image(buffer.getvalue())


def test_floats_up_to_255_are_read_where_their_white_is_named() -> None:
    buffer = io.BytesIO()
    Image.fromarray(RAMP.astype(np.float32)).save(buffer, "TIFF")
    np.testing.assert_array_equal(decode_image(buffer.getvalue(), PixelRules(white=255))[0], RAMP)


@pytest.mark.parametrize("form", ["PNG", "PPM", "TIFF"])
def test_16_bits_are_the_same_in_every_format(form: str) -> None:
    buffer = io.BytesIO()
    Image.fromarray((RAMP * 257).astype(np.uint16)).save(buffer, form)
    np.testing.assert_allclose(decode_image(buffer.getvalue())[0], RAMP, atol=1)


@pytest.mark.parametrize(("white", "is_noted"), [(None, True), (4095, False)])
def test_a_data_set_that_is_nearly_black_is_noted(tmp_path: Path, white: float | None, is_noted: bool) -> None:
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i}.png").write_bytes((CASES / "ramp_12_in_16bit.png").read_bytes())
    data = load_dataset(DataConfig(name="imagefolder", train_path=str(tmp_path), max_pixel_value=white))
    assert any("reach 4095, which is dark" in note for note in data.notes) == is_noted
