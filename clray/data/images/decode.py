"""One encoded image to a uint8 array.

Must not know where the bytes came from beyond the name it is given for its error messages.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clray.errors import UserError

Payload = bytes | Path
"""An encoded image, or the file that holds one."""
WHITE_OF_16_BITS, WHITE_OF_32_BITS, WHITE_OF_FLOATS = 2**16 - 1, 2**31 - 1, 1.0


@dataclass(frozen=True)
class NoImage:
    """Stands where an image should be, and says why there is none."""

    reason: str


class BadImageError(UserError):
    """An image that cannot be decoded, named with its row."""


def decode_image(payload: Payload, size: int | None, white: float | None = None) -> np.ndarray:
    """One image as uint8 [3, H, W] in RGB, its shorter side resized to `size` and centre-cropped to a square.

    EXIF rotation is applied; palette, CMYK and grey images become RGB; an animation is its first frame. Grey values of
    more than 8 bits are scaled by the range of their mode, never by what the image holds: black is 0, and white 65,535
    in 16 bits, 2,147,483,647 in 32-bit integers and 1 in floats, or `white`. So a ramp is the same in PNG of 8 and of
    16 bits, and 12 bits in a 16-bit file are dark unless `white=4095`.

    Args:
        white: the grey value of white in images of more than 8 bits (`data.max_pixel_value`).

    Raises:
        ValueError: with the decoder's reason; or a value that is negative, above white, or not finite.
    """
    try:
        with Image.open(_source(payload)) as file:
            image = _as_rgb(ImageOps.exif_transpose(file), _white_of(file, white))
            if size is not None and image.size != (size, size):
                image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
            return np.asarray(image).transpose(2, 0, 1)
    except UnidentifiedImageError as error:
        raise ValueError("cannot identify the image: it has no known format") from error
    except Exception as error:  # PIL's decoders raise whatever a damaged file leads them to
        raise ValueError(f"{type(error).__name__}: {error}") from error


def _white_of(file: Image.Image, white: float | None) -> float | None:
    """The grey value that is white in the mode of a file; None for modes of 8 bits, which PIL converts itself."""
    if file.mode == "F":
        return WHITE_OF_FLOATS if white is None else white
    if not file.mode.startswith("I"):
        return None
    # PNG and PGM have 16 bits at most; PIL gives some of them as 32-bit integers.
    is_32_bits = file.mode == "I" and file.format not in ("PNG", "PPM")
    return (WHITE_OF_32_BITS if is_32_bits else WHITE_OF_16_BITS) if white is None else white


def _as_rgb(image: Image.Image, white: float | None) -> Image.Image:
    if white is not None:
        values = np.asarray(image, np.float64)
        low, high = values.min(initial=0), values.max(initial=0)
        if not (low >= 0 and high <= white):
            raise ValueError(
                f"pixels of mode {image.mode} must be in 0..{white:g}, got {values.min():g}..{values.max():g}; name "
                "the value of white with --set data.max_pixel_value=..., or convert the image"
            )
        image = Image.fromarray(np.round(values * (255 / white)).astype(np.uint8))
    return image.convert("RGB")


def require_payload(payload: Payload | NoImage | None, name: str) -> Payload:
    """The payload; raises BadImageError with the reason why there is none."""
    if payload is None or isinstance(payload, NoImage):
        raise BadImageError(f"{name}: no image ({'null' if payload is None else payload.reason})")
    return payload


def decode_payload(payload: Payload | NoImage | None, size: int | None, name: str, white: float | None) -> np.ndarray:
    """Like `decode_image`; raises BadImageError with the row's name."""
    try:
        return decode_image(require_payload(payload, name), size, white)
    except BadImageError:
        raise
    except ValueError as error:
        raise BadImageError(
            f"{name}: cannot decode the image ({error}). "
            "Repair it, or count and leave out bad images with --set data.on_bad_image=skip"
        ) from error


def check_header(payload: Payload | NoImage | None, name: str) -> None:
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


def deep_grey_range(payload: Payload, white: float | None) -> tuple[float, float] | None:
    """The brightest value of a grey image of more than 8 bits, and the value of white; None for other images."""
    try:
        with Image.open(_source(payload)) as file:
            of_mode = _white_of(file, white)
            return None if of_mode is None else (float(np.asarray(file).max()), of_mode)
    except Exception:  # as in decode_image; told where the image is decoded
        return None


def _source(payload: Payload) -> io.BytesIO | Path:
    return io.BytesIO(payload) if isinstance(payload, bytes) else payload
