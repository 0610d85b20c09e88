"""Folders as people have them: parts, hidden files, files that are no images, and links."""

import io
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torchvision
from PIL import Image

from clray.config.sections import DataConfig
from clray.data.check import check_data
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.errors import UserError
from tests.conftest import REPOSITORY, png


def write(root: Path, *names: str, count: int = 4) -> Path:
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            (root / name / f"{i}.png").write_bytes(png(100 * number + i))
    return root


def load(root: Path, **changes: object) -> Dataset:
    return load_dataset(DataConfig(name="imagefolder", train_path=str(root), **changes))


@pytest.mark.parametrize("train", ["train", "Training", "train2017"])
@pytest.mark.parametrize("held_out", ["val", "test", "validation", "Test"])
def test_train_and_val_are_parts_and_no_classes(tmp_path: Path, train: str, held_out: str) -> None:
    write(tmp_path, *(f"{train}/{name}" for name in ("ant", "bee", "cat")))
    write(tmp_path, *(f"{held_out}/{name}" for name in ("ant", "bee", "cat")), count=2)
    data = load(tmp_path)
    assert data.names[None] == ("ant", "bee", "cat")
    assert (len(data.train), len(data.test)) == (12, 6)


def test_the_test_part_goes_before_the_validation_part_and_what_is_left_out_is_said(tmp_path: Path) -> None:
    write(tmp_path, *(f"{part}/{name}" for part in ("train", "val", "test", "extra") for name in ("ant", "bee")))
    data = load(tmp_path)
    assert (len(data.train), len(data.test)) == (8, 8)
    assert f"{tmp_path}: left out the folders beside train/: extra" in data.notes


def test_a_class_may_be_called_train_beside_other_classes(tmp_path: Path) -> None:
    assert load(write(tmp_path, "bus", "train", "tram")).names[None] == ("bus", "train", "tram")


def test_a_lone_training_folder_is_divided(tmp_path: Path) -> None:
    data = load(write(tmp_path, "train/ant", "train/bee"))
    assert data.names[None] == ("ant", "bee")
    assert len(data.train) + len(data.test) == 8


def test_what_systems_leave_behind_is_no_data(tmp_path: Path) -> None:
    write(
        tmp_path, "ant", "bee", ".ipynb_checkpoints", "__MACOSX/ant", "@eaDir", "ant/@eaDir", "bee/.ipynb_checkpoints"
    )
    for name in ("ant/._0.png", "ant/.DS_Store", "bee/Thumbs.db", ".hidden.png"):
        (tmp_path / name).write_bytes(png(0))
    data = load(tmp_path)
    assert data.names[None] == ("ant", "bee")
    assert len(data.train) + len(data.test) == 8
    (note,) = data.notes
    assert "left out 9 hidden files and folders" in note
    assert note in check_data(DataConfig(name="imagefolder", train_path=str(tmp_path))).notes


def encoded(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "form"),
    [("x.gif", "GIF"), ("x.JPG", "JPEG"), ("x.jfif", "JPEG"), ("x.webp", "WEBP"), ("x.bmp", "BMP"), ("x.tiff", "TIFF"),
     ("x.TIF", "TIFF"), ("without_ending", "JPEG"), ("x.img", "PNG"), ("x.png", "JPEG")],
)  # fmt: skip
def test_images_are_read_by_their_content(tmp_path: Path, name: str, form: str) -> None:
    write(tmp_path, "ant", "bee")
    (tmp_path / "ant" / name).write_bytes(encoded(form))
    data = load(tmp_path)
    assert len(data.train) + len(data.test) == 9


def test_what_is_no_image_is_counted_and_named(tmp_path: Path) -> None:
    write(tmp_path, "ant", "bee", "empty", count=4)
    for path in (tmp_path / "empty").iterdir():
        path.unlink()
    for name in ("ant/readme.txt", "ant/list.txt", "bee/page.svg", "loose.png", "notes.md"):
        (tmp_path / name).write_bytes(png(0) if name.endswith(".png") else b"<svg>not pixels</svg>")
    os.mkfifo(tmp_path / "bee" / "pipe")
    data = load(tmp_path)
    assert len(data.train) + len(data.test) == 9
    others, beside, empty = data.notes[:3]
    assert (
        "left out 5 files that are no images (2 .txt, 1 .svg, 1 without ending, 1 .md); the first: ant/list" in others
    )
    assert "1 images lie in no class folder and have no label, such as loose.png" in beside
    assert "1 class folders hold no image; the first: empty" in empty


def test_images_in_no_class_folder_have_no_labels(tmp_path: Path) -> None:
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    data = load(tmp_path)
    assert len(data.train) + len(data.test) == 8
    assert (data.num_classes, data.names[None]) == (0, ())
    assert set(data.train.labels) == set(data.test.labels) == {-1}


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(UserError, match=r"expected images; found 1 \.txt"):
        load(tmp_path)


def test_links_that_loop_or_repeat_a_folder_do_not_multiply_images(tmp_path: Path) -> None:
    write(tmp_path, "ant", "bee", "bee/more")
    (tmp_path / "ant" / "loop").symlink_to(tmp_path)
    (tmp_path / "bee" / "self").symlink_to(tmp_path / "bee")
    (tmp_path / "wasp").symlink_to(tmp_path / "bee")
    data = load(tmp_path)
    assert data.names[None] == ("ant", "bee")
    assert len(data.train) + len(data.test) == 12
    assert "left out 3 links to folders whose images are read where they lie; the first: ant/loop" in data.notes[0]


def test_links_to_what_is_hidden_inside_the_root_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path, ".store/cats", "dog")
    (tmp_path / ".store" / "cats" / "loop").symlink_to(tmp_path / ".store")
    (tmp_path / "cat").symlink_to(tmp_path / ".store" / "cats")
    (tmp_path / "dog" / "extra.png").symlink_to(tmp_path / ".store" / "cats" / "0.png")
    data = load(tmp_path)
    assert data.names[None] == ("cat", "dog")
    assert len(data.train) + len(data.test) < 20


def test_a_broken_link_is_said_to_be_broken(tmp_path: Path) -> None:
    write(tmp_path, "ant", "bee")
    (tmp_path / "ant" / "gone.png").symlink_to("/nowhere/gone.png")
    (tmp_path / "bee" / "itself.png").symlink_to(tmp_path / "bee" / "itself.png")
    with pytest.raises(UserError, match=r"2 images are broken links; the first: ant/gone\.png is a broken link"):
        load(tmp_path)
    data = load(tmp_path, on_bad_image="skip")
    assert (len(data.train) + len(data.test), len(data.skipped)) == (8, 2)
    assert check_data(DataConfig(name="imagefolder", train_path=str(tmp_path))).num_bad == 2


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_link_that_leaves_the_root_is_refused(tmp_path: Path, is_folder: bool) -> None:
    write(tmp_path, "in/ant", "in/bee", "out")
    (tmp_path / "in" / "ant" / "x.png").symlink_to(tmp_path / "out" / ("" if is_folder else "0.png"))
    with pytest.raises(UserError, match=r"1 links leave the folder; the first: ant/x\.png"):
        load(tmp_path / "in", on_bad_image="skip")


def test_images_come_in_the_order_of_torchvision(tmp_path: Path) -> None:
    """The split into training and test images, and with it every result, depends on the order."""
    write(tmp_path, "b", "a b", "a", "b/sub", "b-x", "a/z/y", "a/z-1")
    (tmp_path / "a" / "z.png").write_bytes(png(1))
    reference = torchvision.datasets.ImageFolder(str(tmp_path))
    from clray.data.readers.folders import read_folder

    split = read_folder(tmp_path, DataConfig(name="imagefolder", train_path=str(tmp_path)), "train")
    assert [split.images.name(i) for i in range(len(split.labels))] == [path for path, _ in reference.samples]
    assert split.labels.tolist() == [reference.classes[label] for _, label in reference.samples]


CASES = REPOSITORY / "tests" / "cases" / "folders"


def test_the_public_case_of_train_and_val() -> None:
    data = load(CASES / "train_and_val")
    assert data.names[None] == ("ant", "bee", "cat")
    assert (len(data.train), len(data.test)) == (24, 24)


def test_the_public_case_of_a_hidden_folder(tmp_path: Path) -> None:
    shutil.copytree(CASES / "hidden_folder", tmp_path / "data")
    write(tmp_path / "data", ".ipynb_checkpoints", count=1)
    data = load(tmp_path / "data")
    assert data.names[None] == ("ant", "bee", "cat")
    assert len(data.train) + len(data.test) == 24
    assert any("left out 1 hidden files and folders" in note for note in data.notes)


def test_the_public_case_of_gifs_beside_png() -> None:
    data = load(CASES / "gifs_beside_png")
    assert len(data.train) + len(data.test) == 24 + 30


@pytest.mark.parametrize("names", [("training_set", "test_set"), ("seg_train", "seg_test"), ("train-images", "valid")])
@pytest.mark.parametrize("around", ["", "photos/", "archive/dataset/images/"])
def test_parts_are_found_by_their_usual_names_and_inside_lone_folders(
    tmp_path: Path, names: tuple[str, str], around: str
) -> None:
    """As archives unpack: a folder in a folder, and text files beside."""
    for part, count in zip(names, (6, 3), strict=True):
        write(tmp_path, *(f"{around}{part}/{name}" for name in ("ant", "bee")), count=count)
    (tmp_path / around / "labels").mkdir()
    (tmp_path / around / "labels" / "0.txt").write_text("0 0.5 0.5 1 1")
    (tmp_path / "README.md").write_text("about")
    data = load(tmp_path)
    assert (len(data.train), len(data.test)) == (12, 6)
    assert data.names[None] == ("ant", "bee")


@pytest.mark.parametrize("folder", ["", "photos", "a/b/c"])
def test_a_flat_folder_has_no_labels(tmp_path: Path, folder: str) -> None:
    data = load(write(tmp_path, folder, count=12))
    assert len(data.train) + len(data.test) == 12
    assert data.num_classes == 0


def test_images_beside_class_folders_have_no_label(tmp_path: Path) -> None:
    write(tmp_path, "", "ant", "bee", count=8)
    data = load(tmp_path)
    assert data.names[None] == ("ant", "bee")
    labels = np.concatenate([data.train.labels, data.test.labels])
    np.testing.assert_array_equal(np.bincount(labels + 1), [8, 8, 8])
    assert any("8 images lie in no class folder and have no label, such as 0.png" in note for note in data.notes)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_metadata_describe_the_images_of_their_folder(tmp_path: Path, form: str) -> None:
    """Hugging Face's imagefolder: `file_name`, relative to the metadata, and any columns."""
    for part, count in (("train", 6), ("test", 4)):
        write(tmp_path, f"{part}/images", count=count)
        rows = [{"file_name": f"images/{i}.png", "label": "ab"[i % 2], "colour": "red"} for i in range(count)]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if form == "csv":
            text = "file_name,label,colour\n" + "".join(",".join(row.values()) + "\n" for row in rows)
        (tmp_path / part / f"metadata.{form}").write_text(text, encoding="utf-8")
    data = load(tmp_path)
    assert (len(data.train), len(data.test)) == (6, 4)
    assert data.names[None] == ("a", "b")
    assert data.train.labels.tolist() == [0, 1] * 3
    assert data.names["colour"] == ("red",)


def test_metadata_without_labels_leave_the_folders_their_names(tmp_path: Path) -> None:
    write(tmp_path, "ant", "bee")
    lines = ["file_name,size", *(f"{name}/{i}.png,{i}" for name in ("ant", "bee") for i in range(3))]
    (tmp_path / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    data = load(tmp_path)
    assert data.names[None] == ("ant", "bee")
    assert data.names["size"] == ("0", "1", "2", "nan")
    assert any("2 images have no row in the metadata, such as ant/3.png" in note for note in data.notes)


def test_a_row_of_metadata_without_an_image_is_named(tmp_path: Path) -> None:
    write(tmp_path, "ant", "bee")
    lines = ["file_name,x", "0.png,1", "../bee/0.png,1", "../../x.png,1", "0.png,2"]
    (tmp_path / "ant" / "metadata.csv").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(UserError, match=r"ant/metadata\.csv: row 2: no image '\.\./\.\./x\.png' .*\(2 such rows\)"):
        load(tmp_path)
    data = load(tmp_path, on_bad_image="skip")
    assert [reason.partition("csv: ")[2] for reason in data.skipped] == [
        "row 2: no image '../../x.png' below its folder", "row 3: the image '0.png' occurs in an earlier row",
    ]  # fmt: skip


def test_a_label_column_that_no_metadata_have_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "ant", "bee")
    (tmp_path / "metadata.csv").write_text("file_name,x\nant/0.png,1\n", encoding="utf-8")
    with pytest.raises(UserError, match="no metadata has the column 'species'"):
        load(tmp_path, label_column="species")


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("inner", ["", "photos/"])
def test_a_list_above_the_parts_describes_the_images_of_each(tmp_path: Path, name: str, inner: str) -> None:
    write(tmp_path, *(f"{inner}{part}" for part in ("train", "val", "test")))
    rows = [
        {"file_name": f"{inner}{part}/{i}.png", "label": ["ant", "bee"][i % 2], "colour": f"c{i % 2}"}
        for part in ("train", "val", "test")
        for i in range(4)
    ]
    table = pd.DataFrame(rows)
    if name.endswith(".csv"):
        table.to_csv(tmp_path / name, index=False)
    else:
        table.to_json(tmp_path / name, orient="records", lines=True)
    data = load(tmp_path)
    assert data.validation is not None
    for samples in (data.train, data.validation, data.test):
        assert samples.labels.tolist() == [0, 1, 0, 1]
    assert data.names[None] == ("ant", "bee")
    assert data.train.columns["colour"].tolist() == [0, 1, 0, 1]
    assert data.notes == ()


def test_rows_above_the_parts_that_name_nothing_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "data", "train", "test")
    (tmp_path / "outside.png").write_bytes(png(1))
    for wrong in ("train/9.png", "train/../../outside.png", "../outside.png", str(tmp_path / "outside.png"), "x\0y"):
        (tmp_path / "data" / "metadata.csv").write_text(f'file_name,label\ntrain/0.png,ant\n"{wrong}",bee\n')
        with pytest.raises(UserError, match="row 1: no image"):
            load(tmp_path / "data")
    data = load(tmp_path / "data", on_bad_image="skip")
    assert len(data.skipped) == 1


def test_a_list_that_describes_one_part_alone_leaves_the_other_without_labels(tmp_path: Path) -> None:
    write(tmp_path, "train", "test")
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + "".join(f"train/{i}.png,{i % 2}\n" for i in range(4)))
    data = load(tmp_path)
    assert data.train.labels.tolist() == [0, 1, 0, 1]
    assert data.test.labels.tolist() == [-1] * 4
    assert any("4 images have no row in the metadata, such as test/0.png" in note for note in data.notes)


def test_a_list_beside_classes_stays_one_data_set(tmp_path: Path) -> None:
    """A lone folder below a list is entered only where it is divided into parts."""
    write(tmp_path, "photos/ant", "photos/bee")
    rows = "".join(f"photos/{name}/{i}.png,{i}\n" for name in ("ant", "bee") for i in range(4))
    (tmp_path / "metadata.csv").write_text("file_name,label\n" + rows)
    assert load(tmp_path).names[None] == ("0", "1", "2", "3")
