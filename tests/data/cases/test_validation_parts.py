"""Validation images of the data's own: `val/` beside `train/` and `test/`, or where the config says."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.config import parse_config
from clray.config.sections import DataConfig
from clray.data.build import build_parquet
from clray.data.check import check_data
from clray.data.guess import guess
from clray.data.load import check_files, load_dataset
from clray.data.samples import Dataset
from clray.data.validation import with_validation
from clray.errors import UserError
from tests.conftest import png

COUNTS = {"train": 8, "valid": 4, "test": 6}
CLASSES = ("ant", "bee")


def write_folder(root: Path, part: str, count: int, seed: int) -> None:
    for i in range(count):
        file = root / part / CLASSES[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(png(seed + i))


def write_parquet(root: Path, part: str, count: int, seed: int) -> None:
    labels = [CLASSES[i % 2] for i in range(count)]
    table = pa.table({"image": [png(seed + i) for i in range(count)], "label": labels})
    pq.write_table(table, root / f"{part}-00000-of-00001.parquet")


def write_tar(root: Path, part: str, count: int, seed: int) -> None:
    with tarfile.open(root / f"{part}-000.tar", "w") as file:
        for i in range(count):
            for ending, data in (("png", png(seed + i)), ("cls", CLASSES[i % 2].encode())):
                member = tarfile.TarInfo(f"{i:03d}.{ending}")
                member.size = len(data)
                file.addfile(member, io.BytesIO(data))


WRITERS = {"imagefolder": write_folder, "parquet": write_parquet, "tar": write_tar}


def write(kind: str, root: Path, *parts: str) -> DataConfig:
    root.mkdir(exist_ok=True)
    for part in parts:
        WRITERS[kind](root, part, COUNTS[part], 100 * len(part))
    return DataConfig(name=kind, train_path=str(root), image_size=8)


def sizes(data: Dataset) -> tuple[int, int | None, int]:
    return len(data.train), None if data.validation is None else len(data.validation), len(data.test)


def read(config: DataConfig) -> Dataset:
    return with_validation(load_dataset(config), config)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_validation_part_beside_both_others_chooses(tmp_path: Path, kind: str) -> None:
    config = write(kind, tmp_path, *COUNTS)
    data = read(config)
    assert sizes(data) == (8, 4, 6)
    assert data.names[None] == CLASSES
    assert data.validation is not None
    assert data.validation.labels.tolist() == ([0, 0, 1, 1] if kind == "imagefolder" else [0, 1, 0, 1])
    expected = {png(100 * len("valid") + i) for i in range(4)}
    found = {data.validation.images.pixels[i].tobytes() for i in range(4)}
    assert found == {load_bytes(each) for each in expected}
    (note,) = data.notes
    assert note == "the data have 4 validation images of their own: data.validation_fraction=0.1 does nothing"
    assert {each.name: each.found for each in check_data(config).findings}["validation images"] == 4
    assert (guess(tmp_path, {}).num_images, guess(tmp_path, {}).num_train) == (18, 8)


def load_bytes(encoded: bytes) -> bytes:
    from clray.data.images.decode import decode_image

    return decode_image(encoded).tobytes()


@pytest.mark.parametrize("kind", WRITERS)
def test_a_validation_part_is_for_testing_where_nothing_else_is(tmp_path: Path, kind: str) -> None:
    whole = load_dataset(write(kind, tmp_path / "a", "train", "valid"))
    assert sizes(whole) == (8, None, 4)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_test_path_of_its_own_leaves_the_validation_part_to_choose(tmp_path: Path, kind: str) -> None:
    config = write(kind, tmp_path / "a", "train", "valid")
    write(kind, tmp_path / "b", "test")
    data = load_dataset(config.model_copy(update={"test_path": str(tmp_path / "b")}))
    assert sizes(data) == (8, 4, 6)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_validation_part_that_is_named_for_testing_does_not_choose_too(tmp_path: Path, kind: str) -> None:
    config = write(kind, tmp_path, "train", "valid")
    place = {"imagefolder": "valid", "parquet": "valid-00000-of-00001.parquet", "tar": "valid-*.tar"}[kind]
    assert sizes(load_dataset(config.model_copy(update={"test_path": str(tmp_path / place)}))) == (8, None, 4)


@pytest.mark.parametrize("kind", WRITERS)
def test_the_users_own_validation_images_go_before_those_of_the_data(tmp_path: Path, kind: str) -> None:
    config = write(kind, tmp_path / "a", *COUNTS)
    write(kind, tmp_path / "b", "test")
    chosen = config.model_copy(update={"validation_path": str(tmp_path / "b")})
    check_files(chosen)
    data = read(chosen)
    assert sizes(data) == (8, 6, 6)
    assert any("left out" in note and "valid" in note for note in data.notes)
    with pytest.raises(UserError, match=r"data\.validation_path: no such file or folder"):
        check_files(config.model_copy(update={"validation_path": str(tmp_path / "c")}))


def test_a_list_of_validation_images(tmp_path: Path) -> None:
    for number, part in enumerate(COUNTS):
        names = [f"{part}{i}.png" for i in range(COUNTS[part])]
        for i, name in enumerate(names):
            (tmp_path / name).write_bytes(png(100 * number + i))
        labels = [CLASSES[i % 2] if part != "valid" else "cat" for i in range(len(names))]
        pd.DataFrame({"path": names, "class": labels}).to_csv(tmp_path / f"{part}.csv", index=False)
    config = DataConfig(name="csv", train_path=str(tmp_path / "train.csv"),
                        validation_path=str(tmp_path / "valid.csv"))  # fmt: skip
    data = read(config)
    assert sizes(data) == (6, 4, 2)
    assert "1 of 3 classes have validation or test images only; the first: cat" in data.notes
    assert sizes(read(config.model_copy(update={"max_validation_images": 3}))) == (6, 3, 2)
    for key in ("train_path", "test_path"):
        same = config.model_copy(update={key: str(tmp_path / "valid.csv")})
        with pytest.raises(UserError, match=r"data\.validation_path: .*valid\.csv holds the (train|test)ing images"):
            load_dataset(same)


def test_vectors_have_validation_labels_beside_them(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for part, count in COUNTS.items():
        np.save(tmp_path / f"{part}.npy", generator.normal(size=(count, 3)).astype(np.float32))
        (tmp_path / "labels").mkdir(exist_ok=True)
        np.save(tmp_path / "labels" / f"{part}.npy", np.arange(count) % 2)
    labels = {f"{key}labels_path": str(tmp_path / "labels" / f"{part}.npy")
              for key, part in (("", "train"), ("test_", "test"), ("validation_", "valid"))}  # fmt: skip
    pattern = str(tmp_path / "*.npy")
    data = read(DataConfig(name="embeddings", train_path=pattern, **labels))
    assert sizes(data) == (8, 4, 6)
    assert data.validation is not None
    assert data.validation.labels.tolist() == [0, 1, 0, 1]
    # Without their labels they would choose by nothing.
    del labels["validation_labels_path"]
    assert load_dataset(DataConfig(name="embeddings", train_path=pattern, **labels)).validation is None


def test_attributes_need_not_tell_of_validation_images(tmp_path: Path) -> None:
    config = write("imagefolder", tmp_path / "a", *COUNTS)
    files = [each for part in ("train", "test") for each in (tmp_path / "a" / part).rglob("*.png")]
    names = [str(file.relative_to(tmp_path / "a")) for file in files]
    pd.DataFrame({"path": names, "colour": ["red", "blue"] * 7}).to_csv(tmp_path / "known.csv", index=False)
    data = load_dataset(config.model_copy(update={"attributes_path": str(tmp_path / "known.csv")}))
    assert sizes(data) == (8, 4, 6)
    assert list(data.train.columns) == ["colour"]


def test_a_part_that_is_not_there_is_refused(tmp_path: Path) -> None:
    config = write("imagefolder", tmp_path, "train", "test")
    with pytest.raises(UserError, match="holds test and train, and no folder for validation"):
        load_dataset(config.model_copy(update={"validation_path": str(tmp_path)}))
    for name, path in (("digits", None), ("cub200", "x")):
        section = {"name": name, "train_path": path, "validation_path": "y"}
        with pytest.raises(UserError, match=f"validation_path: data.name={name} takes none"):
            parse_config({"data": section}, "test")


def test_a_build_keeps_the_validation_part(tmp_path: Path) -> None:
    config = write("imagefolder", tmp_path / "a", *COUNTS)
    built = build_parquet(config.model_copy(update={"image_size": None}), tmp_path / "out")
    assert (built.num_train, built.num_validation, built.num_test) == (8, 4, 6)
    copy = load_dataset(DataConfig(name="parquet", train_path=str(tmp_path / "out")))
    source = load_dataset(config)
    assert copy.validation is not None
    assert source.validation is not None
    assert np.array_equal(copy.validation.images.pixels, source.validation.images.pixels)
    assert np.array_equal(copy.validation.labels, source.validation.labels)
