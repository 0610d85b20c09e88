"""Damaged lists, metadata, TIFFs and JPEGs that are scaled while decoding: read or refused, never anything else."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clray.config.sections import DataConfig
from clray.data.images.decode import PixelRules, decode_image
from clray.data.load import load_dataset
from clray.errors import UserError
from tests.conftest import png
from tests.data.images.test_depth import FLOAT, RAMP, RGB, SIGNED, saved, tiff

NUM_FILES = 300
PIECES = [b"\n", b'"', b"{", b"\x00", b",", b"\xff", b"\\ud800", b"../", b"1e999"]
FOLDERS = ["train/a", "train/b", "val/a", "a", "b", ".x", "a/c", ""]
ROWS = "".join(
    f'{{"file_name": "a/{i}.png", "label": {i % 2}, "text": "é", "list": ["x", "y"], "n": {i}.5}}\n' for i in range(6)
).encode()
TABLE = b"file_name;label;text\r\n" + b"".join(b"a\\%d.png;%d;007\r\n" % (i, i % 2) for i in range(6))


def damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """With some bytes cut, replaced, repeated, or put in."""
    out = bytearray(data)
    for _ in range(generator.integers(1, 4)):
        at, how = int(generator.integers(len(out) + 1)), generator.integers(4)
        if how == 0:
            del out[at : at + int(generator.integers(1, 40))]
        elif how == 1:
            out[at : at + 1] = generator.bytes(1)
        elif how == 2:
            out[at:at] = out[max(0, at - 30) : at]
        else:
            out[at:at] = bytes(
                generator.choice([b"\n", b'"', b"{", b"\x00", b",", b"\xff", b"\\ud800", b"../", b"1e999"])
            )
    return bytes(out)


def refused(path: Path, name: str, on_bad: str) -> bool:
    """Whether the data are refused by a message; any other error is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load_dataset(DataConfig(name=name, train_path=str(path), on_bad_image=on_bad))
        except UserError:
            return True
    return False


@pytest.mark.parametrize(
    ("file", "data", "name"),
    [("t.jsonl", ROWS, "csv"), ("t.csv", TABLE, "csv"), ("metadata.jsonl", ROWS, "imagefolder")],
)
def test_damaged_lists_and_metadata_are_read_or_refused(tmp_path: Path, file: str, data: bytes, name: str) -> None:
    (tmp_path / "a").mkdir()
    for i in range(6):
        (tmp_path / "a" / f"{i}.png").write_bytes(png(i))
    (tmp_path / file).write_bytes(data)
    path = tmp_path if name == "imagefolder" else tmp_path / file
    assert not refused(path, name, "error")
    outcomes = []
    for seed in range(NUM_FILES):
        generator = np.random.default_rng(seed)
        (tmp_path / file).write_bytes(damaged(data, generator))
        outcomes.append(refused(path, name, "skip" if seed % 2 else "error"))
    assert 0.05 < np.mean(outcomes) < 0.99, "both are tried"


def test_damaged_folders_are_read_or_refused(tmp_path: Path) -> None:
    """Files lost, emptied, cut, replaced by folders and links, in every combination."""
    for seed in range(NUM_FILES):
        generator, root = np.random.default_rng(seed), tmp_path / str(seed)
        for name in generator.choice(
            ["train/a", "train/b", "val/a", "a", "b", ".x", "a/c", ""], generator.integers(1, 4)
        ):
            (root / str(name)).mkdir(parents=True, exist_ok=True)
            for i in range(3):
                file, how = root / str(name) / f"{i}.png", generator.integers(12)
                if file.is_symlink() or file.exists():
                    continue
                if how == 0:
                    file.symlink_to(str(generator.choice(["..", "/etc", "gone", ".", "1.png"])))
                elif how == 1:
                    file.mkdir()
                else:
                    file.write_bytes(png(i)[: int(generator.integers(1, 200)) if how == 2 else None])
        refused(root, "imagefolder", "skip" if seed % 2 else "error")


def test_damaged_images_of_every_depth_are_decoded_or_refused() -> None:
    seeds = [
        tiff(RAMP.astype(np.uint16) * 257),
        tiff(RAMP.astype(np.int16), SIGNED),
        tiff((RAMP / 255).astype(np.float32), FLOAT),
        tiff(np.stack([RAMP] * 5, -1), photometric=RGB),
        saved(Image.fromarray(np.stack([np.tile(RAMP, (4, 4))] * 3, -1)), "JPEG"),
    ]
    for seed in range(NUM_FILES):
        data = damaged(seeds[seed % len(seeds)], np.random.default_rng(seed))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                pixels = decode_image(data, PixelRules(8))
            except ValueError:
                continue
        assert (pixels.shape, pixels.dtype) == ((3, 8, 8), np.uint8)
