from pathlib import Path

import pytest

from clray.data.readers.published.imagenet import read_classes, read_imagenet100
from clray.errors import UserError
from tests.data.readers.published.layouts import IMAGENET_CLASSES, write_imagenet


def test_only_the_listed_classes_are_read(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    catalog = read_imagenet100(root, root / "classes.txt")
    assert sorted(set(catalog.table["label"])) == sorted(IMAGENET_CLASSES)
    assert catalog.table["split"].value_counts().to_dict() == {"train": 6, "test": 3}
    assert all(file.is_file() for file in catalog.files())


def test_the_papers_list_has_a_hundred_different_ids() -> None:
    names = read_classes(None)
    assert len(set(names)) == 100
    assert names == sorted(names)


def test_a_class_without_a_folder_is_named(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    (root / "classes.txt").write_text("n01496331\nn09999999\n")
    with pytest.raises(UserError, match="no folder for 1 of 2 classes: n09999999"):
        read_imagenet100(root, root / "classes.txt")


@pytest.mark.parametrize("text", ["cat\ndog\n", "n01496331\n", "n01496331\nn01496331\n", ""])
def test_a_list_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UserError, match="WordNet id"):
        read_classes(tmp_path / "classes.txt")
