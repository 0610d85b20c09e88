"""WIDER Attribute: scenes with people, each in a box with 14 attributes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clray.data.readers.published.catalog import (
    Catalog,
    Source,
    read_text,
    require_file,
    require_names,
    require_rows,
    safe_paths,
)
from clray.errors import UserError

SOURCE = Source(
    title="WIDER Attribute",
    obtained="the Chinese University of Hong Kong (mmlab.ie.cuhk.edu.hk/projects/WIDERAttribute): "
    "wider_attribute_image.tgz and wider_attribute_annotation.zip, unpacked into one folder",
    num_images=13_789,
    num_classes=30,
    num_attributes=14,
)
FOLDERS = ("", "Anno/", "Annotations/", "wider_attribute_annotation/")
FILES = ("wider_attribute_trainval.json", "wider_attribute_test.json")


def read_wider(root: Path) -> Catalog:
    """The images with their scene, and which attributes any of their people has.

    Attributes of an image are the disjunction over its boxes: 1 where one person has it, else 0, as in Tsai et al.
    (arXiv 2202.06670), whose tables hold the publishers' training and validation images for training (6,871), and
    their test images for testing.

    Raises:
        UserError: missing or malformed annotations.
    """
    names: tuple[str, ...] = ()
    rows, no_people, unspecified = [], 0, 0
    for file in FILES:
        path = require_file(root, [folder + file for folder in FOLDERS], SOURCE)
        tree = _load(path)
        own = tuple(_by_number(tree, "attribute_id_map", path).values())
        require_names(own, path)
        if file != FILES[0] and own != names:
            raise UserError(f"{path}: expected the attribute_id_map of {FILES[0]}, {names}; got {own}")
        names = own
        scenes = _by_number(tree, "scene_id_map", path)
        for number, image in enumerate(_list(tree, "images", path)):
            where = f"{path}, image {number}"
            boxes = _boxes(image, len(names), where)
            scene, name = image.get("scene_id"), image.get("file_name")
            if not isinstance(name, str) or not isinstance(scene, int) or scene not in scenes:
                raise UserError(
                    f"{where}: expected a file_name and a scene_id of scene_id_map; got {name!r}, {scene!r}"
                )
            no_people += len(boxes) == 0
            unspecified += int((boxes == 0).sum())
            split = "test" if file == FILES[1] else "train"
            rows.append((name, scenes[scene], split, *(boxes == 1).any(axis=0).astype(np.int8)))
    table = pd.DataFrame(rows, columns=["path", "label", "split", *names])
    require_rows(table, root, SOURCE)
    folder = require_file(root, ("Image", "train", "wider_attribute_image"), SOURCE)
    folder = root if folder.name == "train" else folder
    safe_paths(table["path"].tolist(), root)
    notes = []
    if no_people:
        notes.append(f"{no_people} images have no person marked: all their attributes are 0")
    if unspecified:
        notes.append(f"{unspecified} attributes of people are unspecified and count as absent")
    return Catalog(SOURCE, folder, table, names, tuple(notes))


def _load(path: Path) -> dict[str, Any]:
    text = read_text(path, SOURCE)
    try:
        tree = json.loads(text)
        if "\\ud" in text.lower():  # JSON can escape halves of characters, which no text holds
            json.dumps(tree, ensure_ascii=False).encode()
    except (json.JSONDecodeError, UnicodeEncodeError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected an object with images, attribute_id_map and scene_id_map")
    return tree


def _list(tree: dict[str, Any], key: str, path: Path) -> list[dict[str, Any]]:
    found = tree.get(key)
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise UserError(f"{path}: expected '{key}' to be a list of objects")
    return found


def _by_number(tree: dict[str, Any], key: str, path: Path) -> dict[int, str]:
    """Names by number, in the order of the numbers; the files hold the numbers as text."""
    found = tree.get(key)
    try:
        assert isinstance(found, dict), "a map"
        return {int(number): str(name) for number, name in sorted(found.items(), key=lambda item: int(item[0]))}
    except (AssertionError, ValueError, TypeError):
        raise UserError(f"{path}: expected '{key}' to map numbers to names") from None


def _boxes(image: dict[str, Any], num_attributes: int, where: str) -> np.ndarray:
    """Attributes of each person, int [people, attributes]: 1 present, -1 absent, 0 unspecified."""
    targets = image.get("targets", [])
    try:
        boxes = [np.array([int(value) for value in target["attribute"]], np.int64) for target in targets]
    except (TypeError, KeyError, ValueError, OverflowError):
        raise UserError(f"{where}: expected targets with an 'attribute' list each") from None
    if any(len(box) != num_attributes for box in boxes):
        raise UserError(f"{where}: expected {num_attributes} attributes for each person")
    return np.array(boxes, np.int64).reshape(len(boxes), num_attributes)
