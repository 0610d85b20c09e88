from pathlib import Path

import pytest

from clray.data.readers.published.zappos import read_zappos
from clray.errors import UserError
from tests.data.readers.published.layouts import write_zappos


def test_classes_are_category_and_subcategory_and_attributes_leave_them_out(tmp_path: Path) -> None:
    catalog = read_zappos(write_zappos(tmp_path))
    assert sorted(set(catalog.table["label"])) == ["Boots/Ankle", "Shoes/Oxfords", "Slippers/Slipper Flats"]
    assert catalog.attributes == ("HeelHeight.Flat", "Closure.Lace.up", "Gender.Men", "Material.Leather")
    assert all(file.is_file() for file in catalog.files())


def test_attributes_are_those_of_the_file_of_the_same_name(tmp_path: Path) -> None:
    table = read_zappos(write_zappos(tmp_path)).table.set_index("path")
    row = table.loc["Shoes/Oxfords/Bostonian/100627.255.jpg"]
    assert (row["HeelHeight.Flat"], row["Material.Leather"]) == (0, 1)


def test_an_image_without_a_row_is_counted_and_has_missing_attributes(tmp_path: Path) -> None:
    root = write_zappos(tmp_path)
    path = root / "ut-zap50k-data" / "meta-data-bin.csv"
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join([*lines[:-1], lines[1], "5-5,0,0,0,0,0,0,0,0"]), encoding="utf-8")
    catalog = read_zappos(root)
    assert catalog.notes == (
        "1 images have no row of attributes; theirs are missing values",
        "1 rows of attributes have no image and are left out",
        "1 rows repeat a CID and are left out",
    )
    assert catalog.table["Gender.Men"].isna().sum() == 1


def test_what_is_missing_says_where_it_is_obtained(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"holds none of ut-zap50k-images-square.*obtained from the University of Texas"
    ):
        read_zappos(tmp_path)
