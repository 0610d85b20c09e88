from pathlib import Path

import pytest

from clray.config.sections import DataConfig
from clray.data.load import load_dataset
from clray.data.readers.published.cub import read_cub
from clray.errors import UserError
from tests.data.readers.published.layouts import CUB_ATTRIBUTES, CUB_CLASSES, write_cub


def test_the_publishers_split_and_species_are_kept(tmp_path: Path) -> None:
    table = read_cub(write_cub(tmp_path)).table
    assert table["split"].tolist() == ["train"] * 4 + ["test"] * 2
    assert table["label"].tolist() == [*CUB_CLASSES, *CUB_CLASSES]


def test_marks_are_read_from_malformed_lines_too_and_what_is_unmarked_is_minus_one(tmp_path: Path) -> None:
    catalog = read_cub(write_cub(tmp_path))
    marks = catalog.table[list(CUB_ATTRIBUTES)].to_numpy()
    expected = [[(i + a) % 2 for a in (1, 2, 3)] for i in range(1, 7)]
    expected[2][2] = -1
    assert marks.tolist() == expected
    assert len(catalog.notes) == 3, "further fields, an unknown image, an attribute not marked"


def test_a_mark_counts_from_a_certainty_on(tmp_path: Path) -> None:
    marks = read_cub(write_cub(tmp_path), min_certainty=4).table[list(CUB_ATTRIBUTES)].to_numpy()
    expected = [[(i + a) % 2 and 1 + (i * a) % 4 >= 4 for a in (1, 2, 3)] for i in range(1, 7)]
    expected[2][2] = -1
    assert marks.tolist() == [[int(value) for value in row] for row in expected]


def test_labels_1_2_and_200_become_0_1_and_2(tmp_path: Path) -> None:
    data = load_dataset(DataConfig(name="cub200", train_path=str(write_cub(tmp_path)), image_size=8))
    assert data.train.labels.tolist() == [0, 1, 2, 0]
    assert data.num_classes == 3
    assert set(data.train.columns) == set(CUB_ATTRIBUTES)


def test_paths_that_leave_the_images_are_refused(tmp_path: Path) -> None:
    root = write_cub(tmp_path)
    path = root / "CUB_200_2011" / "images.txt"
    path.write_text(path.read_text().replace("001.Black_footed_Albatross/", "../../../"))
    with pytest.raises(UserError, match=r"images\.txt: 2 paths leave the image root"):
        read_cub(root)


def test_a_file_that_forgets_an_image_is_named(tmp_path: Path) -> None:
    root = write_cub(tmp_path)
    path = root / "CUB_200_2011" / "train_test_split.txt"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]))
    with pytest.raises(UserError, match=r"train_test_split\.txt: no line for 1 images of images\.txt; the first: 6"):
        read_cub(root)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("classes.txt", "2 again", "class 2 is named twice"),
        ("images.txt", "1 a\0.jpg", "1 paths are no file's on any system"),
        ("train_test_split.txt", f"1 {10**30}", "expected whole numbers"),
        ("../attributes.txt", f"4 {CUB_ATTRIBUTES[0]}", "a name of its own for each attribute"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path: Path, name: str, line: str, message: str) -> None:
    root = write_cub(tmp_path)
    path = root / "CUB_200_2011" / name
    path.write_text(f"{line}\n{path.read_text()}")
    with pytest.raises(UserError, match=message):
        read_cub(root)
