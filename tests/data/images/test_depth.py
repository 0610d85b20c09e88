"""What the numbers of an image mean, mode by mode."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from clray.data.images.decode import PixelRules, decode_image

RAMP = np.arange(256, dtype=np.uint8).reshape(16, 16)
UNSIGNED, SIGNED, FLOAT = 1, 2, 3
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2


def tiff(pixels: np.ndarray, kind: int = UNSIGNED, photometric: int = BLACK_IS_ZERO, bits: int | None = None) -> bytes:
    """An uncompressed TIFF of [H, W] or [H, W, C], as instruments write them and PIL does not."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    data = pixels.tobytes()
    more = channels - (3 if photometric == RGB else 1)
    tags = [
        (256, "I", [width]), (257, "I", [height]), (258, "H", [bits or pixels.itemsize * 8] * channels),
        (259, "H", [1]), (262, "H", [photometric]), (273, "I", [8]), (277, "H", [channels]), (278, "I", [height]),
        (279, "I", [len(data)]), *([(338, "H", [0] * more)] if more else []), (339, "H", [kind] * channels),
    ]  # fmt: skip
    start = 8 + len(data)
    entries, beyond = b"", b""
    for tag, form, values in tags:
        raw = struct.pack(f"<{len(values)}{form}", *values)
        if len(raw) > 4:
            place = start + 2 + 12 * len(tags) + 4 + len(beyond)
            beyond, raw = beyond + raw, struct.pack("<I", place)
        entries += struct.pack("<HHI", tag, {"H": 3, "I": 4}[form], len(values)) + raw.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", start) + data + struct.pack("<H", len(tags)) + entries + bytes(4) + beyond


def saved(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def packed_in_12_bits(values: np.ndarray) -> np.ndarray:
    first, second = values.reshape(-1, 2).astype(int).T
    rows = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1)
    return rows.astype(np.uint8).reshape(len(values), -1)


@pytest.mark.parametrize(
    "data",
    [
        tiff(RAMP),
        tiff(255 - RAMP, photometric=WHITE_IS_ZERO),
        tiff(RAMP.astype(np.uint16) * 257),
        tiff(65535 - RAMP.astype(np.uint16) * 257, photometric=WHITE_IS_ZERO),
        tiff(np.round(RAMP * (32767 / 255)).astype(np.int16), SIGNED),
        tiff(RAMP.astype(np.uint32) * 16843009),
        tiff(np.round(RAMP * ((2**31 - 1) / 255)).astype(np.int32), SIGNED),
        tiff((RAMP / 255).astype(np.float32), FLOAT),
        tiff(np.stack([RAMP.astype(np.uint16) * 257] * 3, -1), photometric=RGB),
        tiff(np.stack([RAMP, RAMP, RAMP, 255 - RAMP], -1), photometric=RGB),
    ],
    ids=["8", "8 inverted", "16", "16 inverted", "16 signed", "32", "32 signed", "float", "RGB 16", "RGB and one more"],
)
def test_the_same_ramp_is_the_same_in_every_mode_of_tiff(data: bytes) -> None:
    pixels = decode_image(data)
    np.testing.assert_allclose(pixels, np.broadcast_to(RAMP, (3, 16, 16)), atol=1)


def test_packed_12_bits_end_at_4095() -> None:
    data = bytearray(tiff(packed_in_12_bits(np.round(RAMP * (4095 / 255))), bits=12))
    data[data.index(struct.pack("<HHI", 256, 4, 1)) + 8] = 16  # the width counts pixels, not bytes
    np.testing.assert_allclose(decode_image(bytes(data))[0], RAMP, atol=1)


@pytest.mark.parametrize("num_channels", [5, 6, 8, 200])
@pytest.mark.parametrize("photometric", [BLACK_IS_ZERO, RGB])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_more_than_four_channels_are_refused_by_number(num_channels: int, photometric: int, kind: type) -> None:
    """PIL shows the first three of five."""
    data = tiff(np.stack([RAMP.astype(kind)] * num_channels, -1), photometric=photometric)
    with pytest.raises(ValueError, match=rf"{num_channels} channels; at most 4"):
        decode_image(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tiff((RAMP - 128).astype(np.int8), SIGNED), "signed numbers of 8 bits"),
        (tiff((RAMP / 255).astype(np.float64), FLOAT), "a TIFF of 1 channels of 64 bits"),
        (tiff(np.stack([RAMP / np.float32(255)] * 3, -1), FLOAT, RGB), "a TIFF of 3 channels of 32 bits"),
        (tiff(RAMP.astype(np.float32), FLOAT), r"in 0\.\.1, got 0\.\.255; .* with data.max_pixel_value=255"),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_image(data)


def test_a_white_of_its_own_is_refused_for_colours_of_16_bits() -> None:
    """PIL reads their upper 8 bits, and 16 shades would be left of 12 bits."""
    data = tiff(np.stack([RAMP.astype(np.uint16) * 16] * 3, -1), photometric=RGB)
    assert decode_image(data).max() == 15
    with pytest.raises(ValueError, match=r"white is 65535; data\.max_pixel_value=4095 holds for grey images only"):
        decode_image(data, PixelRules(white=4095))


def png_of_16_bits(pixels: np.ndarray) -> bytes:
    """RGB or RGBA in 16 bits, which PIL reads and does not write."""
    height, width, channels = pixels.shape
    eight = saved(Image.fromarray(pixels))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).astype(">u2").tobytes() for row in pixels)
    return eight[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("size", [None, 8])
def test_png_of_8_and_of_16_bits_give_the_same_pixels(channels: int, size: int | None) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (21, 17, channels), dtype=np.uint8)
    if channels == 1:
        eight = saved(Image.fromarray(pixels[..., 0]))
        sixteen = saved(Image.fromarray(pixels[..., 0].astype(np.uint16) * 257))
    else:
        eight, sixteen = saved(Image.fromarray(pixels)), png_of_16_bits(pixels)
    rules = PixelRules(size)
    np.testing.assert_array_equal(decode_image(eight, rules), decode_image(sixteen, rules))


HALF = np.array([[0, 128, 255]], np.uint8)


@pytest.mark.parametrize(("background", "behind"), [("white", (255, 255, 255)), ("#ff8000", (255, 128, 0))])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_pixels_show_the_background(mode: str, background: str, behind: tuple[int, ...]) -> None:
    """Their hidden colours are often black, or what was erased."""
    image = Image.fromarray(np.full((1, 3, 4), 40, np.uint8))
    image.putalpha(Image.fromarray(HALF))
    form = "PNG" if mode != "PA" else "TIFF"
    pixels = decode_image(saved(image.convert(mode), form), PixelRules(background=background))
    expected = [[round(40 * a / 255 + b * (1 - a / 255)) for a in HALF[0].tolist()] for b in behind]
    np.testing.assert_allclose(pixels[:, 0], expected, atol=1)


@pytest.mark.parametrize("kind", ["palette", "RGB", "grey", "16 bits"])
def test_a_transparent_colour_is_the_background_in_every_mode(kind: str) -> None:
    grey = np.array([[0, 7, 200]], np.uint8)
    image, clear = {
        "palette": (Image.fromarray(grey).quantize(), None),
        "RGB": (Image.fromarray(np.stack([grey] * 3, -1)), (7, 7, 7)),
        "grey": (Image.fromarray(grey), 7),
        "16 bits": (Image.fromarray(grey.astype(np.uint16) * 257), 7 * 257),
    }[kind]
    clear = image.getpixel((1, 0)) if clear is None else clear
    pixels = decode_image(saved(image, transparency=clear), PixelRules(background="red"))
    np.testing.assert_array_equal(pixels[:, 0].T, [[0, 0, 0], [255, 0, 0], [200, 200, 200]])


@pytest.mark.parametrize("size", [None, 8, 24])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_stand_upright(orientation: int, size: int | None) -> None:
    at = np.linspace(0, 255, 60 * 90).reshape(60, 90).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(Image.fromarray(np.stack([at, at.T.reshape(60, 90), 255 - at], -1)), "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if size is not None:
        expected = ImageOps.fit(expected, (size, size), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(decode_image(data, PixelRules(size)).transpose(1, 2, 0), np.asarray(expected), atol=1)


@pytest.mark.parametrize("size", [16, 48])
def test_a_jpeg_decoded_at_a_smaller_scale_looks_the_same(size: int) -> None:
    """Half the size and less cost a fraction of the time."""
    at = np.linspace(0, 6, 300)
    smooth = 127 + 60 * np.sin(at)[:, None] * np.cos(2 * at)[None] + 40 * np.sin(3 * at)[None]
    data = saved(Image.fromarray(np.stack([smooth, smooth.T, 255 - smooth], -1).astype(np.uint8)), "JPEG", quality=92)
    whole = decode_image(saved(Image.open(io.BytesIO(data))), PixelRules(size)).astype(int)
    difference = decode_image(data, PixelRules(size)) - whole
    assert np.abs(difference).mean() < 1
    assert np.abs(difference).max() < 12
