"""Caltech-UCSD Birds 200-2011: 200 species, and 312 binary attributes that people marked with their certainty."""

from pathlib import Path

import numpy as np
import pandas as pd

from clray.data.readers.published.catalog import (
    Catalog,
    Source,
    read_spaced,
    read_text,
    require_file,
    require_names,
    require_rows,
    safe_paths,
)
from clray.errors import UserError

SOURCE = Source(
    title="CUB-200-2011",
    obtained="Caltech (data.caltech.edu, record 65de6-vp158): CUB_200_2011.tgz, unpacked",
    num_images=11_788,
    num_classes=200,
    num_attributes=312,
)
UNMARKED = -1


def read_cub(root: Path, min_certainty: int = 1) -> Catalog:
    """The images with their species, the publishers' split, and the attributes.

    An attribute is 1 where it was marked present with at least `min_certainty` (1 not visible, 2 guessing, 3 probably,
    4 definitely), 0 where it was marked otherwise, and -1 where nobody marked it.

    Raises:
        UserError: a missing file, or one that names other images than `images.txt`.
    """
    folder = require_file(root, ("images.txt", "CUB_200_2011/images.txt"), SOURCE).parent
    images = read_spaced(folder / "images.txt", ("image", "path"), SOURCE).set_index("image")
    require_rows(images, folder / "images.txt", SOURCE)
    classes = read_spaced(folder / "classes.txt", ("class", "label"), SOURCE).set_index("class")["label"]
    if classes.index.has_duplicates:
        twice = classes.index[classes.index.duplicated()][0]
        raise UserError(f"{folder / 'classes.txt'}: class {twice} is named twice")
    labels = _numbers(folder / "image_class_labels.txt", "class", images.index)
    is_training = _numbers(folder / "train_test_split.txt", "is_training", images.index)
    unknown = sorted(set(labels) - set(classes.index))
    if unknown:
        raise UserError(f"{folder / 'image_class_labels.txt'}: class {unknown[0]} is not in classes.txt")
    names = _attribute_names(root, folder)
    marks, notes = _read_marks(folder / "attributes" / "image_attribute_labels.txt", images.index, names, min_certainty)
    table = pd.DataFrame(
        {
            "path": safe_paths(images["path"].tolist(), folder / "images.txt"),
            "label": classes.loc[labels].to_numpy(),
            "split": np.where(is_training == 1, "train", "test"),
        }
    )
    table = pd.concat([table, pd.DataFrame(marks, columns=list(names))], axis=1)
    return Catalog(SOURCE, folder / "images", table, names, notes)


def _numbers(path: Path, name: str, images: pd.Index) -> np.ndarray:
    """The number that a file gives to each image, in the order of `images`."""
    lines = read_spaced(path, ("image", name), SOURCE).drop_duplicates("image").set_index("image")[name]
    missing = images.difference(lines.index)
    if len(missing):
        raise UserError(f"{path}: no line for {len(missing)} images of images.txt; the first: {missing[0]}")
    try:
        return lines.loc[images].astype(int).to_numpy()
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: expected whole numbers: {error}") from None


def _attribute_names(root: Path, folder: Path) -> tuple[str, ...]:
    # The archive puts this file beside its folder; many copies moved it to the attributes.
    path = require_file(folder, ("attributes/attributes.txt", "attributes.txt", "../attributes.txt"), SOURCE)
    if not path.resolve().is_relative_to(root.resolve()) and path.resolve().parent != root.resolve().parent:
        raise UserError(f"{path}: leaves the root {root}")
    names = tuple(read_spaced(path, ("attribute", "name"), SOURCE)["name"])
    require_names(names, path)
    return names


def _read_marks(
    path: Path, images: pd.Index, names: tuple[str, ...], min_certainty: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Marks, int8 [images, attributes], from lines `image attribute is_present certainty seconds`.

    Some lines of the published file carry further fields; the first four are right in them.
    """
    position = {image: row for row, image in enumerate(images)}
    marks = np.full((len(images), len(names)), UNMARKED, np.int8)
    num_longer, num_foreign = 0, 0
    for line in read_text(path, SOURCE).splitlines():
        words = line.split()
        try:
            image, attribute, is_present, certainty = map(int, words[:4])
            row = position[image]
        except (ValueError, KeyError):
            num_foreign += bool(words)
            continue
        if not 1 <= attribute <= len(names):
            num_foreign += 1
            continue
        num_longer += len(words) > 5
        marks[row, attribute - 1] = is_present == 1 and certainty >= min_certainty
    notes = [
        f"{count} {what}"
        for count, what in (
            (num_longer, "lines of image_attribute_labels.txt carry further fields, which are ignored"),
            (num_foreign, "lines of image_attribute_labels.txt fit no image and attribute and are left out"),
            (int((marks == UNMARKED).sum()), "attributes of images are not marked"),
        )
        if count
    ]
    return marks, tuple(notes)
