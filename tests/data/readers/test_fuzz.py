"""Damaged files of every kind: a clear error or a counted skip, never anything else."""

import io
import json
import shutil
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from clray.config.sections import DataConfig
from clray.data.images.decode import PixelRules, decode_image
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.errors import UserError
from tests.conftest import png
from tests.data.readers.published.layouts import write_cub, write_imagenet, write_wider, write_zappos

NUM_CASES = {"images": 1000, "tables": 600, "published": 300}
MANY = {"deadline": None, "suppress_health_check": list(HealthCheck), "derandomize": True}


def encoded(form: str, mode: str, size: int = 9) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (size, size, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert("L" if mode.startswith("I") else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def animation() -> bytes:
    frames = [Image.fromarray(np.full((9, 9), value, np.uint8)) for value in (0, 100, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG whose header promises 60,000 x 60,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


SEEDS = {
    "png": encoded("PNG", "RGB"),
    "palette": encoded("PNG", "P"),
    "16 bits": encoded("PNG", "I;16"),
    "grey": encoded("JPEG", "L"),
    "cmyk": encoded("JPEG", "CMYK"),
    "tiff": encoded("TIFF", "RGB"),
    "bmp": encoded("BMP", "RGB"),
    "webp": encoded("WEBP", "RGB"),
    "animation": animation(),
    "html": b"<!doctype html><html><body>404 Not Found</body></html>",
    "nothing": b"",
    "bomb": bomb(),
}
GOOD = ("png", "palette", "16 bits", "grey", "cmyk", "tiff", "bmp", "webp", "animation")


@st.composite
def damaged(draw: st.DrawFn, seeds: st.SearchStrategy[bytes]) -> bytes:
    """Bytes cut short, with some replaced, with others put in, or as they are."""
    data = bytearray(draw(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(("cut", "replace", "insert", "repeat")))
        if how == "cut":
            del data[at:]
        elif how == "replace" and data:
            data[at] = draw(st.integers(0, 255))
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=8))
        else:
            data += data[at : at + 16]
    return bytes(data)


@settings(max_examples=NUM_CASES["images"], **MANY)
@given(data=damaged(st.sampled_from(list(SEEDS.values()))))
def test_any_bytes_are_an_image_or_a_value_error(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pixels = decode_image(data, PixelRules(8))
        except ValueError:
            return
    assert pixels.shape == (3, 8, 8)
    assert pixels.dtype == np.uint8


@pytest.mark.parametrize("kind", GOOD)
def test_every_kind_of_image_is_read(kind: str) -> None:
    assert decode_image(SEEDS[kind]).shape == (3, 9, 9)


@pytest.mark.parametrize(
    ("kind", "reason"), [("html", "cannot identify"), ("nothing", "cannot identify"), ("bomb", "exceeds limit")]
)
def test_what_is_no_image_says_so(kind: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode_image(SEEDS[kind])


def test_16_bit_pixels_keep_their_high_byte() -> None:
    eight = np.asarray(Image.open(io.BytesIO(encoded("PNG", "L"))))
    np.testing.assert_array_equal(decode_image(SEEDS["16 bits"])[0], eight)


def test_a_rotation_in_the_exif_data_is_applied() -> None:
    image = Image.fromarray(np.arange(24, dtype=np.uint8).reshape(4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by 90 degrees
    buffer = io.BytesIO()
    image.save(buffer, "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(buffer.getvalue())[0], np.rot90(np.asarray(image), -1))


def load_or_refuse(config: DataConfig) -> Dataset | None:
    """The data set, or None where it is refused by a message of one line per problem."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            data = load_dataset(config)
        except UserError as refusal:
            message = str(refusal)
            if not message.strip() or "Traceback" in message:
                raise
            return None
    assert len(data.train) == len(data.train.images) > 0
    assert data.train.labels.max() < data.num_classes
    return data


@pytest.fixture(scope="module")
def table_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    (folder / "a").mkdir()
    for i in range(6):
        (folder / "a" / f"{i}.png").write_bytes(png(i))
    (folder / "outside.png").symlink_to("/etc/hostname")
    images = [{"bytes": png(i), "path": None} for i in range(8)]
    pq.write_table(pa.table({"image": images, "label": [0, 1] * 4, "x": list(range(8))}), folder / "t.parquet")
    return folder


CSV = b"path,class,colour,size\n" + b"".join(
    f"a/{i}.png,{i % 2},{'red' if i < 3 else 'blue'},{i * 0.37}\n".encode() for i in range(6)
)
CSVS = (
    CSV,
    b"\xef\xbb\xbf" + CSV,
    CSV.decode().encode("utf-16"),
    CSV.replace(b"red", "größe".encode("latin-1")),
    CSV.replace(b"path,", b"file,"),
    CSV.replace(b"a/1.png", b"a/0.png"),
    CSV.replace(b"a/1.png", b"../../etc/passwd"),
    CSV.replace(b"a/1.png", b"/etc/passwd"),
    CSV.replace(b"a/1.png", b"outside.png"),
    CSV.replace(b"a/2.png,0", b"a/2.png,0,1,2,3,4"),
    CSV.replace(b"red", b""),
    CSV.replace(b"a/3.png,1", b"a/3.png,"),
    b"\n".join(CSV.splitlines()[:2]),
    CSV.replace(b"\n", b"\r\n"),
    CSV.replace(b"colour", b'"col\x00our'),
)


@settings(max_examples=NUM_CASES["tables"] // 2, **MANY)
@given(data=damaged(st.sampled_from(CSVS)), on_bad=st.sampled_from(("error", "skip")))
def test_any_csv_loads_or_is_refused(table_folder: Path, data: bytes, on_bad: str) -> None:
    path = table_folder / "fuzz.csv"
    path.write_bytes(data)
    load_or_refuse(DataConfig(name="csv", train_path=str(path), on_bad_image=on_bad))


@settings(max_examples=NUM_CASES["tables"] // 2, **MANY)
@given(data=st.data(), on_bad=st.sampled_from(("error", "skip")))
def test_any_parquet_file_loads_or_is_refused(table_folder: Path, data: st.DataObject, on_bad: str) -> None:
    whole = (table_folder / "t.parquet").read_bytes()
    path = table_folder / "fuzz.parquet"
    path.write_bytes(data.draw(damaged(st.just(whole))))
    load_or_refuse(DataConfig(name="parquet", train_path=str(path), on_bad_image=on_bad))


WRITERS: dict[str, Callable[[Path], Path]] = {
    "zappos50k": write_zappos, "cub200": write_cub, "wider_attribute": write_wider, "imagenet100": write_imagenet,
}  # fmt: skip


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published")
    for name, write in WRITERS.items():
        write(folder / name)
    return folder


@settings(max_examples=NUM_CASES["published"], **MANY)
@given(data=st.data(), name=st.sampled_from(list(WRITERS)), on_bad=st.sampled_from(("error", "skip")))
def test_any_published_layout_loads_or_is_refused(layouts: Path, data: st.DataObject, name: str, on_bad: str) -> None:
    """One file of the layout is damaged, removed, or replaced by a folder or by a link that leaves the root."""
    root = layouts / name
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    whole = path.read_bytes()
    how = data.draw(st.sampled_from(("damaged", "damaged", "damaged", "missing", "folder", "link")))
    bytes_left = data.draw(damaged(st.just(whole))) if how == "damaged" else b""
    path.unlink()
    try:
        if how == "damaged":
            path.write_bytes(bytes_left)
        elif how == "folder":
            path.mkdir()
        elif how == "link":
            path.symlink_to("/etc/hostname")
        classes = str(root / "classes.txt") if name == "imagenet100" else None
        load_or_refuse(
            DataConfig(name=name, train_path=str(root), classes_path=classes, on_bad_image=on_bad, image_size=8)
        )
    finally:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.write_bytes(whole)


JSON = st.recursive(
    st.none() | st.integers(-5, 30) | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=9), each, max_size=3),
)


@settings(max_examples=100, **MANY)
@given(
    value=JSON, key=st.sampled_from(("images", "attribute_id_map", "scene_id_map", "targets", "scene_id", "file_name"))
)
def test_any_value_in_the_annotations_of_wider_loads_or_is_refused(layouts: Path, value: object, key: str) -> None:
    path = layouts / "wider_attribute" / "wider_attribute_trainval.json"
    whole = path.read_text()
    tree = json.loads(whole)
    (tree if key in tree else tree["images"][0])[key] = value
    try:
        path.write_text(json.dumps(tree))
        load_or_refuse(DataConfig(name="wider_attribute", train_path=str(layouts / "wider_attribute"), image_size=8))
    finally:
        path.write_text(whole)


def test_an_image_folder_may_not_link_out_of_itself(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(4):
            (tmp_path / name / f"{i}.png").write_bytes(png(i))
    elsewhere = tmp_path.parent / "elsewhere.png"
    elsewhere.write_bytes(png(9))
    (tmp_path / "cat" / "9.png").symlink_to(elsewhere)
    with pytest.raises(UserError, match=r"1 links leave the folder; the first: cat/9\.png\. Remove them, copy"):
        load_dataset(DataConfig(name="imagefolder", train_path=str(tmp_path)))


def test_an_image_folder_takes_attributes_from_a_csv_that_lacks_some(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "images" / name / f"{i}.png").write_bytes(png(i))
    frame = pd.DataFrame({"path": [f"cat/{i}.png" for i in range(4)], "colour": ["black", "white"] * 2})
    frame.to_csv(tmp_path / "attributes.csv", index=False)
    config = DataConfig(
        name="imagefolder", train_path=str(tmp_path / "images"), attributes_path=str(tmp_path / "attributes.csv")
    )
    data = load_dataset(config)
    assert data.names["colour"] == ("black", "white", "nan")
    is_dog = data.train.labels == 1
    np.testing.assert_array_equal(data.train.columns["colour"] == 2, is_dog)
