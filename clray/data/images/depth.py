"""What the numbers of an image mean: the value of white in each mode, and which images have no meaning here."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, TiffImagePlugin

WHITE_OF_16_BITS, WHITE_OF_32_BITS, WHITE_OF_FLOATS = 2**16 - 1, 2**31 - 1, 1.0
MAX_CHANNELS = 4
PHOTOMETRIC, BITS, SAMPLES, SAMPLE_FORMAT = 262, 258, 277, 339
"""Tags of TIFF."""
UNSIGNED, SIGNED = 1, 2
WHITE_IS_ZERO = 0


@dataclass(frozen=True)
class Depth:
    """Of a grey image of more than 8 bits.

    Attributes:
        mode: that of PIL, for messages.
        white: the value that becomes 255.
        is_inverted: whether 0 is white and `white` black.
        is_unsigned: whether 32 bits that PIL reads with a sign have none.
    """

    mode: str
    white: float
    is_inverted: bool = False
    is_unsigned: bool = False

    def values(self, pixels: np.ndarray) -> np.ndarray:
        """The numbers of an image as they are meant, float64."""
        meant = pixels.view(np.uint32) if self.is_unsigned else pixels
        return meant.astype(np.float64)

    def scaled(self, pixels: np.ndarray) -> np.ndarray:
        """The numbers of an image as uint8.

        Raises:
            ValueError: one is negative, above white, or not finite.
        """
        values = self.values(pixels)
        low, high = values.min(initial=0), values.max(initial=0)
        if not (low >= 0 and high <= self.white):
            white = "255" if self.mode == "F" and 1 < high <= 255 and low >= 0 else "..."
            raise ValueError(
                f"pixels of mode {self.mode} must be in 0..{self.white:g}, got {values.min():g}..{values.max():g}; "
                f"name the value of white with data.max_pixel_value={white}, or convert the image"
            )
        scaled = np.round(values * (255 / self.white)).astype(np.uint8)
        return 255 - scaled if self.is_inverted else scaled


def depth_of(file: Image.Image, white: float | None) -> Depth | None:
    """How the numbers of an opened image are read; None for images of 8 bits a channel, which PIL converts itself.

    Args:
        white: the value of white where the user named it.

    Raises:
        ValueError: more than four channels, signed numbers of 8 bits, or colours of 16 bits with a white of their own.
    """
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        _require_readable(file)
    if file.mode == "F":
        return Depth("F", WHITE_OF_FLOATS if white is None else white)
    if not file.mode.startswith("I"):
        if white not in (None, WHITE_OF_16_BITS) and _has_16_bits(file):
            raise ValueError(
                f"colours of 16 bits are read by their upper 8, so that white is 65535; data.max_pixel_value={white:g} "
                "holds for grey images only. Convert the image to 8 bits a channel"
            )
        return None
    if isinstance(file, TiffImagePlugin.TiffImageFile):
        return _depth_of_tiff(file, white)
    # PNG and PGM have 16 bits at most; PIL gives some of them as 32-bit integers.
    is_32_bits = file.mode == "I" and file.format not in ("PNG", "PPM")
    return Depth(file.mode, (WHITE_OF_32_BITS if is_32_bits else WHITE_OF_16_BITS) if white is None else white)


def _depth_of_tiff(file: TiffImagePlugin.TiffImageFile, white: float | None) -> Depth:
    """From the file's own tags: 12 bits end at 4,095, and signed numbers at half of what unsigned ones do."""
    bits, kind = file.tag_v2.get(BITS, (16,))[0], file.tag_v2.get(SAMPLE_FORMAT, (UNSIGNED,))[0]
    of_mode = 2 ** (bits - 1 if kind == SIGNED else bits) - 1
    is_inverted = file.tag_v2.get(PHOTOMETRIC) == WHITE_IS_ZERO
    is_unsigned = bits == 32 and kind == UNSIGNED
    return Depth(file.mode, of_mode if white is None else white, is_inverted, is_unsigned)


def _require_readable(file: TiffImagePlugin.TiffImageFile) -> None:
    """PIL shows the first three of five channels, and reads signed numbers of 8 bits without their sign."""
    channels = file.tag_v2.get(SAMPLES, 1)
    if channels > MAX_CHANNELS:
        raise ValueError(_too_many(channels))
    if file.tag_v2.get(SAMPLE_FORMAT, (UNSIGNED,))[0] == SIGNED and file.tag_v2.get(BITS, (8,))[0] == 8:
        raise ValueError("signed numbers of 8 bits have no meaning as pixels; convert the image")


def _has_16_bits(file: Image.Image) -> bool:
    tiles = getattr(file, "tile", ())
    return any(";16" in str(tile[3]) for tile in tiles)


def refusal_of(source: io.BytesIO | Path) -> str | None:
    """Why PIL does not know a TIFF: its channels and bits; None for what is no TIFF."""
    try:
        data = source.getvalue() if isinstance(source, io.BytesIO) else source.read_bytes()
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
        stream = io.BytesIO(data)
        stream.seek(tags.next)
        tags.load(stream)
        channels, bits = int(tags.get(SAMPLES, 1)), tags.get(BITS, (1,))
        if channels > MAX_CHANNELS:
            return _too_many(channels)
        return f"a TIFF of {channels} channels of {bits[0]} bits is of no kind that can be decoded; convert the image"
    except Exception:  # what is no TIFF, or a damaged one
        return None


def _too_many(channels: int) -> str:
    return f"{channels} channels; at most {MAX_CHANNELS} (RGB and transparency) have a meaning. Write the three to use"
