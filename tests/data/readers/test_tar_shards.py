"""Tar files as WebDataset lays them out."""

import io
import json
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from clray.config.sections import DataConfig
from clray.data.build import build_parquet
from clray.data.check import check_data
from clray.data.load import check_files, kind_of, load_dataset
from clray.data.loaders import ordered_batches
from clray.data.readers.tar_index import read_index
from clray.errors import UserError
from tests.conftest import png


def write(path: Path, members: Mapping[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(count: int = 8, first: int = 0) -> dict[str, bytes]:
    members = {}
    for i in range(first, first + count):
        record = json.dumps({"colour": "rg"[i % 2], "size": i % 3, "tags": ["x"] * (i % 2), "more": {"deep": 1}})
        members |= {f"{i:04d}.png": png(i), f"{i:04d}.cls": f"{i % 2}\n".encode(), f"{i:04d}.json": record.encode()}
    return members


def config(path: Path, **changes: object) -> DataConfig:
    return DataConfig(name="tar", train_path=str(path), **changes)


@pytest.mark.parametrize("limit_mib", [1, 100])
def test_images_are_read_from_their_places(tmp_path: Path, limit_mib: int) -> None:
    large = {f"{i}.png": png(i, size=200) for i in range(12)} | {
        f"{i}.cls": b"ab"[i % 2 : i % 2 + 1] for i in range(12)
    }
    path = write(tmp_path / "x.tar", large)
    chosen = config(path, test_path=str(path), memory_limit_mib=limit_mib, image_size=200)
    data = load_dataset(chosen)
    assert data.train.images.is_decoded == (limit_mib == 100)
    images = pickle.loads(pickle.dumps(data.train.images))
    ((pixels, _),) = images.batches([np.array([7, 0])], chosen.model_copy(update={"num_decoders": 0}))
    for i, row in enumerate((7, 0)):
        (tmp_path / f"{row}.png").write_bytes(large[f"{row}.png"])
        alone = write(
            tmp_path / "alone.tar", {"a.png": large[f"{row}.png"], "a.cls": b"a", "b.png": png(1), "b.cls": b"b"}
        )
        expected = load_dataset(config(alone, test_path=str(alone), image_size=200)).train.images.pixels[0]
        np.testing.assert_array_equal(pixels[i], expected)
    assert data.names[None] == ("a", "b")


def test_shards_and_their_parts_are_one_data_set_with_what_is_known(tmp_path: Path) -> None:
    write(tmp_path / "d" / "train-000000.tar", samples(8))
    write(tmp_path / "d" / "train-000001.tar", samples(4, first=8), tarfile.GNU_FORMAT)
    write(tmp_path / "d" / "test-000000.tar", samples(6))
    assert kind_of(tmp_path / "d") == "tar"
    chosen = config(tmp_path / "d")
    check_files(chosen)
    data = load_dataset(chosen)
    assert (len(data.train), len(data.test)) == (12, 6)
    assert data.train.labels.tolist() == [0, 1] * 6
    assert set(data.train.columns) == {"colour", "size", "tags=x"}
    by_colour = load_dataset(config(tmp_path / "d", label_column="colour"))
    assert by_colour.names[None] == ("g", "r")
    pattern = load_dataset(config(tmp_path / "d" / "train-*1.tar", test_path=str(tmp_path / "d")))
    assert (len(pattern.train), len(pattern.test)) == (4, 6)
    assert check_data(chosen).is_whole
    assert build_parquet(chosen, tmp_path / "built").num_train == 12


def test_a_label_may_stand_in_the_records(tmp_path: Path) -> None:
    members = {}
    for i in range(8):
        members |= {f"a/{i}.jpg": png(i), f"a/{i}.json": json.dumps({"label": "xy"[i % 2]}).encode()}
    data = load_dataset(config(write(tmp_path / "x.tar", members)))
    assert data.names[None] == ("x", "y")
    with pytest.raises(UserError, match=r"data\.label_column=species: no sample has it; there are: label"):
        load_dataset(config(tmp_path / "x.tar", label_column="species"))


def test_keys_with_folders_dots_long_names_and_several_images(tmp_path: Path) -> None:
    deep = "/".join(["folder" * 10] * 4)
    members = {}
    for i in range(8):
        members |= {
            f"./{deep}/{i}.left.PNG": png(i), f"./{deep}/{i}.right.png": png(i + 8),
            f"./{deep}/{i}.cls": b"%d" % (i % 2),
            f"./{deep}/._{i}.png": b"no image",
        }  # fmt: skip
    path = write(tmp_path / "x.tar", members)
    with pytest.raises(UserError, match=r"holds several images \(left\.png, right\.png\); name one with data\.image_c"):
        load_dataset(config(path))
    data = load_dataset(config(path, image_column="right.png", test_path=str(path)))
    assert len(data.train) == 8


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "x.tar", {**samples(), "0000.txt": b"a caption", "lost.cls": b"1", "readme": b"about"})
    with tarfile.open(path, "a") as tar:
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    notes = " ".join(load_dataset(config(path)).notes)
    assert "left out 1 links and devices" in notes
    assert "left out 2 samples without an image; the first:" in notes
    assert "1 .txt" in notes


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.txt": b"x"}, r"holds no image, such as key\.jpg; it holds 1 \.txt"),
        ({**samples(), "0000.json": b"{"}, r"x\.tar, 0000: 0000\.json is no JSON"),
        ({**samples(), "0000.json": b"[1]"}, r"0000\.json must hold a mapping .* it holds a list"),
        ({**samples(), "0000.json": b"[" * 100_000}, r"0000\.json is no JSON"),
        ({**samples(), "0000.cls": b"\xff\xfe"}, r"0000\.cls is no text in UTF-8"),
        ({**samples(), "0000.cls": bytes(2**20 + 1)}, r"0000\.cls has 1048577 bytes; labels and records have at most"),
        ({**samples(), "0000.PNG": png(3)}, r"holds 0000\.PNG twice"),
    ],
)
def test_what_cannot_be_meant_is_refused(tmp_path: Path, members: dict[str, bytes], message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_dataset(config(write(tmp_path / "x.tar", members)))


def test_a_damaged_or_cut_tar_is_named_with_the_byte(tmp_path: Path) -> None:
    whole = write(tmp_path / "x.tar", samples()).read_bytes()
    index = read_index(tmp_path / "x.tar")
    third = index.members[3].offset - 512
    for damaged in (whole[:third] + b"\x07" * 512 + whole[third + 512 :], whole[: third + 100]):
        (tmp_path / "y.tar").write_bytes(damaged)
        with pytest.raises(UserError, match=rf"y\.tar: damaged or cut: byte {third} should begin another file"):
            read_index(tmp_path / "y.tar")
    (tmp_path / "y.tar").write_bytes(whole[: third + 512 + 10])
    with pytest.raises(UserError, match=r"y\.tar: .*(unexpected end|damaged or cut)"):
        read_index(tmp_path / "y.tar")
    (tmp_path / "y.tar").write_bytes(whole[: index.members[12].offset - 512])
    assert "has no mark of its end" in " ".join(load_dataset(config(tmp_path / "y.tar", on_bad_image="skip")).notes)
    for content, message in (
        (b"", "not a whole tar"),
        (b"no tar at all", "not a whole tar"),
        (b"\x1f\x8b\x08" + whole, "gzip"),
    ):
        (tmp_path / "y.tar").write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_index(tmp_path / "y.tar")


def test_a_tar_that_was_cut_after_its_index_was_read_names_the_image(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.tar",
        {f"{i}.png": png(i, size=200) for i in range(12)} | {f"{i}.cls": b"%d" % (i % 2) for i in range(12)},
    )
    chosen = config(path, memory_limit_mib=1, image_size=200, num_decoders=0)
    data = load_dataset(chosen)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"x\.tar, \d+: cannot decode the image .*it was cut since it was read"):
        list(ordered_batches(data.train, np.arange(len(data.train)), batch_size=4, config=chosen))
