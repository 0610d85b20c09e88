import json
from pathlib import Path

import pytest

from clray.data.readers.published.wider import read_wider
from clray.errors import UserError
from tests.data.readers.published.layouts import WIDER_ATTRIBUTES, write_wider


def test_an_image_has_the_attributes_that_any_of_its_people_has(tmp_path: Path) -> None:
    catalog = read_wider(write_wider(tmp_path))
    assert catalog.table[list(WIDER_ATTRIBUTES)].to_numpy().tolist() == [
        [1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 0],
    ]  # fmt: skip
    assert catalog.table["label"].tolist() == ["Parade", "Ceremony", "Parade", "Ceremony", "Parade"]
    assert all(file.is_file() for file in catalog.files())


def test_the_publishers_validation_images_are_for_training(tmp_path: Path) -> None:
    assert read_wider(write_wider(tmp_path)).table["split"].tolist() == ["train"] * 3 + ["test"] * 2


def test_images_beside_the_annotations_are_found_too(tmp_path: Path) -> None:
    root = write_wider(tmp_path)
    for name in ("train", "val", "test"):
        (root / "Image" / name).rename(root / name)
    (root / "Image").rmdir()
    assert all(file.is_file() for file in read_wider(root).files())


def nobody_of_two_attributes(tree: dict) -> None:
    """Images without people agree with any map."""
    del tree["attribute_id_map"]["2"]
    for image in tree["images"]:
        image["targets"] = []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tree: tree.pop("scene_id_map"), "expected 'scene_id_map' to map numbers to names"),
        (lambda tree: tree["images"][0].update(scene_id=5), "image 0: expected a file_name and a scene_id"),
        (
            lambda tree: tree["images"][1].update(targets=[{"bbox": []}]),
            "image 1: expected targets with an 'attribute'",
        ),
        (lambda tree: tree["images"][2]["targets"][0].update(attribute=[1]), "expected 3 attributes for each person"),
        (
            lambda tree: tree["images"][2]["targets"][0].update(attribute=[10**30, 0, 0]),
            "image 2: expected targets with an 'attribute'",
        ),
        (
            lambda tree: tree["images"][2]["targets"][0].update(attribute=[float("inf"), 0, 0]),
            "image 2: expected targets with an 'attribute'",
        ),
        (lambda tree: tree["attribute_id_map"].update({"1": "Male"}), "a name of its own .* got 'Male' once more"),
        (lambda tree: tree["attribute_id_map"].update({"1": "label"}), "a name of its own .* got 'label' once more"),
        (
            lambda tree: tree["images"][0].update(file_name="\ud800.jpg"),
            "not readable as JSON: .* surrogates not allowed",
        ),
        (lambda tree: tree["images"][0].update(file_name="a\0.jpg"), "1 paths are no file's on any system"),
        (nobody_of_two_attributes, "test.json: expected the attribute_id_map of wider_attribute_trainval.json"),
        (lambda tree: tree["images"][0].update(file_name="../x.jpg"), "1 paths leave the image root"),
    ],
)
def test_annotations_of_another_form_are_refused(tmp_path: Path, change: object, message: str) -> None:
    path = write_wider(tmp_path) / "wider_attribute_trainval.json"
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    with pytest.raises(UserError, match=message):
        read_wider(tmp_path)
