"""Encoded images to uint8 arrays of one size.

Must not know where the bytes came from beyond the row name it is given for its error messages.
"""

import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clray.errors import UserError

NUM_THREADS = 4
Payload = bytes | Path
"""An encoded image, or the file that holds one."""
NUM_LOOKED_AT, DARK = 16, 8
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
        with Image.open(io.BytesIO(payload) if isinstance(payload, bytes) else payload) as file:
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


def note_on_dark_images(images: "EncodedImages") -> list[str]:
    """A note where the first deep grey images leave most of their range unused, so that they are dark."""
    seen: dict[float, float] = {}
    for index in range(min(len(images), NUM_LOOKED_AT)):
        payload = images.payload(index)
        if not isinstance(payload, bytes | Path):
            continue
        try:
            with Image.open(io.BytesIO(payload) if isinstance(payload, bytes) else payload) as file:
                white = _white_of(file, images.white)
                if white is not None:
                    seen[white] = max(seen.get(white, 0), float(np.asarray(file).max()))
        except Exception:  # as in decode_image; told where the image is decoded
            continue
    return [
        f"grey images of more than 8 bits are scaled by the range of their mode, 0..{white:g}, and the first "
        f"{NUM_LOOKED_AT} reach {most:g}, which is dark; name the value of white with data.max_pixel_value"
        for white, most in seen.items()
        if most < white / DARK
    ]


def decode_payload(payload: Payload | NoImage | None, size: int | None, name: str, white: float | None) -> np.ndarray:
    """Like `decode_image`; raises BadImageError with the row's name."""
    if payload is None or isinstance(payload, NoImage):
        raise BadImageError(f"{name}: no image ({'null' if payload is None else payload.reason})")
    try:
        return decode_image(payload, size, white)
    except ValueError as error:
        raise BadImageError(
            f"{name}: cannot decode the image ({error}). "
            "Repair it, or count and leave out bad images with --set data.on_bad_image=skip"
        ) from error


@dataclass(frozen=True)
class EncodedImages:
    """Images that are decoded when they are asked for.

    `payloads` holds one entry per image (a pyarrow binary array or a list); `rows` its name for messages; `white` is
    that of `decode_image`.
    """

    payloads: Sequence
    rows: tuple[str, ...]
    size: int | None
    white: float | None = None

    def __len__(self) -> int:
        return len(self.payloads)

    def payload(self, index: int) -> Payload | NoImage | None:
        item = self.payloads[index]
        return item if isinstance(self.payloads, list) else item.as_py()

    def name(self, index: int) -> str:
        """How messages name the image."""
        return self.rows[index]

    def decode(self, index: int) -> np.ndarray:
        """Image `index` as uint8 [3, H, W]; raises BadImageError naming its row."""
        return decode_payload(self.payload(index), self.size, self.rows[index], self.white)

    def select(self, indices: np.ndarray) -> "EncodedImages":
        """The images at `indices`, in that order."""
        if isinstance(self.payloads, list):
            payloads: Sequence = [self.payloads[i] for i in indices]
        else:
            payloads = self.payloads.take(indices)
        return replace(self, payloads=payloads, rows=tuple(self.rows[i] for i in indices))

    def decoded_bytes(self) -> int:
        """Size of all images once decoded, judged by the first that can be."""
        for index in range(len(self)):
            try:
                return len(self) * self.decode(index).nbytes
            except BadImageError:
                continue
        return 0


def check_headers(images: EncodedImages, on_bad: str) -> tuple[np.ndarray, list[str]]:
    """Rows whose header can be read, found without decoding, and the reasons of the others.

    Raises:
        BadImageError: for the first bad image where `on_bad` is "error".
    """

    def verify(index: int) -> None:
        payload = images.payload(index)
        if payload is None or isinstance(payload, NoImage):
            reason = "null" if payload is None else payload.reason
            raise BadImageError(f"{images.rows[index]}: no image ({reason})")
        try:
            with Image.open(io.BytesIO(payload) if isinstance(payload, bytes) else payload) as file:
                file.verify()
        except UnidentifiedImageError as error:
            raise BadImageError(f"{images.rows[index]}: cannot identify the image: it has no known format") from error
        except Exception as error:  # as in decode_image
            raise BadImageError(f"{images.rows[index]}: cannot read the image ({error})") from error

    good, _, reasons = _for_each(len(images), verify, on_bad)
    return good, reasons


def decode_all(images: EncodedImages, on_bad: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """All images as uint8 [N, 3, H, W], the rows kept, and the reasons of those left out.

    Raises:
        BadImageError: for the first bad image where `on_bad` is "error".
        UserError: images of different sizes without `data.image_size`.
    """
    good, decoded, reasons = _for_each(len(images), images.decode, on_bad)
    shapes = {image.shape for image in decoded}
    if len(shapes) > 1:
        odd = next(i for i, image in enumerate(decoded) if image.shape != decoded[0].shape)
        first, other = decoded[0].shape[1:], decoded[odd].shape[1:]
        raise UserError(
            f"{images.rows[good[odd]]}: the image is {other[1]}x{other[0]} pixels where the first is "
            f"{first[1]}x{first[0]}. Bring them to one size with --set data.image_size={min(first)}"
        )
    return np.stack(decoded) if decoded else np.zeros((0, 3, 1, 1), np.uint8), good, reasons


def _for_each(count: int, work: Callable[[int], object], on_bad: str) -> tuple[np.ndarray, list, list[str]]:
    """Call `work` on every row in threads (PIL releases the interpreter lock); keep what succeeds."""

    def attempt(index: int) -> object:
        try:
            return work(index)
        except BadImageError as error:
            if on_bad == "error":
                raise
            return error

    with ThreadPoolExecutor(NUM_THREADS) as pool:
        results = list(pool.map(attempt, range(count)))
    good = [i for i, result in enumerate(results) if not isinstance(result, BadImageError)]
    reasons = [str(result) for result in results if isinstance(result, BadImageError)]
    return np.array(good, np.int64), [results[i] for i in good], reasons
