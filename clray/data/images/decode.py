"""One encoded image to a uint8 array.

Must not know where the bytes came from beyond the name it is given for its error messages.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin, UnidentifiedImageError

from clray.config.sections import DataConfig
from clray.data.images.depth import Depth, depth_of, refusal_of
from clray.data.images.file_part import FilePart
from clray.data.remote.cache import present
from clray.errors import UserError

Payload = bytes | Path | FilePart
"""An encoded image, or the file, or the part of one, that holds it."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What brings an image upright, by the orientation in its EXIF data."""


@dataclass(frozen=True)
class PixelRules:
    """How every encoded image of a data set becomes pixels.

    Attributes:
        size: height and width to which images are brought, or None.
        white: the grey value of white in images of more than 8 bits; None for the most that their mode holds.
        background: the colour behind transparent pixels, as `data.background`.
    """

    size: int | None = None
    white: float | None = None
    background: str = "white"

    @classmethod
    def of(cls, config: DataConfig) -> Self:
        return cls(config.image_size, config.max_pixel_value, config.background)


@dataclass(frozen=True)
class NoImage:
    """Stands where an image should be, and says why there is none."""

    reason: str


class BadImageError(UserError):
    """An image that cannot be decoded, named with its row."""


def decode_image(payload: Payload, rules: PixelRules = PixelRules()) -> np.ndarray:
    """One image as uint8 [3, H, W] in RGB, its shorter side resized to `rules.size` and centre-cropped to a square.

    EXIF rotation is applied; palette, CMYK and grey images become RGB; an animation is its first frame; transparent
    pixels show `rules.background`. Grey values of more than 8 bits are scaled by the range of their mode, never by what
    the image holds: black is 0, and white 65,535 in 16 bits, 2,147,483,647 in 32-bit integers and 1 in floats, or
    `rules.white`. So a ramp is the same in PNG of 8 and of 16 bits, and 12 bits in a 16-bit file are dark unless
    `white=4095`.

    Raises:
        ValueError: with the decoder's reason; more than four channels; or a value that is negative, above white, or
            not finite.
    """
    try:
        with Image.open(_source(payload)) as file:
            depth = depth_of(file, rules.white)
            width, height = _draft(file, rules.size)
            image = _as_rgb(file, depth, rules.background)
            if rules.size is not None and image.size != (rules.size, rules.size):
                image = _square(image, width, height, rules.size)
            return np.asarray(_upright(image, file)).transpose(2, 0, 1)
    except UnidentifiedImageError as error:
        raise ValueError(refusal_of(_source(payload)) or "cannot identify the image: it has no known format") from error
    except Exception as error:  # PIL's decoders raise whatever a damaged file leads them to
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _draft(file: Image.Image, size: int | None) -> tuple[float, float]:
    """Let a JPEG be decoded at an eighth, a quarter or half of its size, where that leaves the pixels wanted.

    Returns:
        width and height, which need not be whole numbers then.
    """
    if size is None or not isinstance(file, JpegImagePlugin.JpegImageFile):
        return file.size
    drafted = file.draft(None, (size, size))
    return file.size if drafted is None else drafted[1][2:]


def _square(image: Image.Image, width: float, height: float, size: int) -> Image.Image:
    """The centre of an image, its shorter side resized."""
    side = min(width, height)
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))


def _upright(image: Image.Image, file: Image.Image) -> Image.Image:
    """The image turned as the EXIF data of its file say; damaged ones say nothing."""
    try:
        turn = TURNS.get(int(file.getexif().get(ExifTags.Base.Orientation) or 1))
    except Exception:  # as in decode_image
        turn = None
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image, depth: Depth | None, background: str) -> Image.Image:
    if depth is not None:
        clear = image.info.get("transparency")
        values = depth.scaled(np.asarray(image))
        grey = Image.fromarray(values)
        if not isinstance(clear, int):
            return grey.convert("RGB")
        mask = Image.fromarray((np.asarray(image) != clear).astype(np.uint8) * 255)
        return Image.composite(grey.convert("RGB"), Image.new("RGB", image.size, background), mask)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, background)
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def require_payload(payload: Payload | NoImage, name: str) -> Payload:
    """The payload; raises BadImageError with the reason why there is none."""
    if isinstance(payload, NoImage):
        raise BadImageError(f"{name}: no image ({payload.reason})")
    return payload


def decode_payload(payload: Payload | NoImage, name: str, rules: PixelRules) -> np.ndarray:
    """Like `decode_image`; raises BadImageError with the row's name."""
    try:
        return decode_image(require_payload(payload, name), rules)
    except BadImageError:
        raise
    except ValueError as error:
        raise BadImageError(
            f"{name}: cannot decode the image ({error}). "
            "Repair it, or count and leave out bad images with data.on_bad_image=skip"
        ) from error


def check_header(payload: Payload | NoImage, name: str) -> None:
    """Raise BadImageError where the header cannot be read; decodes nothing."""
    try:
        with Image.open(_source(require_payload(payload, name))) as file:
            file.verify()
    except BadImageError:
        raise
    except UnidentifiedImageError as error:
        raise BadImageError(f"{name}: cannot identify the image: it has no known format") from error
    except Exception as error:  # as in decode_image
        raise BadImageError(f"{name}: cannot read the image ({error})") from error


def deep_grey_range(payload: Payload, rules: PixelRules) -> tuple[float, float] | None:
    """The brightest value of a grey image of more than 8 bits, and the value of white; None for other images."""
    try:
        with Image.open(_source(payload)) as file:
            depth = depth_of(file, rules.white)
            return None if depth is None else (float(depth.values(np.asarray(file)).max()), depth.white)
    except Exception:  # as in decode_image; told where the image is decoded
        return None


def _source(payload: Payload) -> io.BytesIO | Path:
    if isinstance(payload, Path):
        return present(payload)
    return io.BytesIO(payload if isinstance(payload, bytes) else payload.read_bytes())
