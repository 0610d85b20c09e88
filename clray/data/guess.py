"""What a file or folder of images holds, guessed: which reader takes it, what its columns mean, how large images are.

Asks the readers themselves; decodes a few images, and writes nothing.
"""

import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from clray.config import parse_config
from clray.config.sections import DataConfig
from clray.data.attributes import encode_attributes
from clray.data.equal_images import notes_on_equal_images
from clray.data.images.decode import BadImageError
from clray.data.images.port import Images
from clray.data.labels import read_known_labels
from clray.data.load import kind_of, read_splits
from clray.data.readers.hub_columns import LABEL_NAMES
from clray.data.readers.image_paths import ImagePaths
from clray.data.readers.lists import path_texts
from clray.data.readers.places import is_pattern
from clray.data.readers.split import Parts
from clray.data.readers.text_tables import read_text_table
from clray.data.remote.address import Address
from clray.data.remote.local import PATHS
from clray.errors import UserError

NUM_LOOKED_AT = 64
CSV_LABELS = ("class", *LABEL_NAMES, "category", "species", "y")
"""What the column of the labels is called in CSVs, the first that is there."""
MOST_DISTINCT, FEWEST_ROWS = 0.9, 10
"""A column, not of fractions, in which more than this share of so many rows are different names rows, not what they
have in common."""
GREY_MODES = ("1", "L", "LA", "I", "F", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True)
class Guess:
    """What was found.

    Attributes:
        data: the keys of the config's `data:` that read it.
        sizes: (width, height) of the images that were looked at.
        num_train: training images, with test and validation images held out.
        num_classes: 0 where there are no labels, or all are the same.
        all_labelled: whether every training image has a label, so that these may be its clusters.
        attributes: columns that may be clustered by, as `clusters.attribute_columns` names them.
        row_names: columns that are no attributes, as nearly every row has a value of its own.
        notes: what else a user should know.
    """

    data: dict[str, Any]
    sizes: tuple[tuple[int, int], ...]
    is_grey: bool
    num_images: int
    num_train: int
    num_classes: int
    all_labelled: bool
    attributes: tuple[str, ...]
    row_names: tuple[str, ...]
    notes: tuple[str, ...]


def guess(path: Path, settings: Mapping[str, Any]) -> Guess:
    """Look at a Parquet file or folder, a CSV, or a folder of images, or what else the readers take.

    Args:
        settings: keys of `data:` that are known; the others are guessed.

    Raises:
        UserError: nothing is there, no reader takes it, or it holds no images.
    """
    data = {**_places(path), **_from_anywhere(settings)}
    if data["name"] == "csv":
        data |= _csv_columns(path, data)
    parts, data, skip_notes = _read(data)
    train, config = parts["train"], _data_config(data)
    if not train.images.has_pixels:
        raise UserError(
            f"{path}: holds vectors and no images. Train on them as they are with data.name=embeddings, which needs no "
            "more than data.train_path; docs/data.md shows a config"
        )
    sizes, modes, bad = _look_at(train.images)
    if bad and config.on_bad_image == "error":
        data["on_bad_image"] = "skip"
        skip_notes = [*skip_notes, f"images that cannot be decoded are left out; the first: {bad[0]}"]
    row_names = tuple(name for name, values in train.columns.items() if _names_rows(values))
    no_attributes = {*row_names, *config.further_columns}
    rest = {name: values for name, values in train.columns.items() if name not in no_attributes}
    teachers = parts.get("labelled", train)
    labels = read_known_labels({"train": teachers.labels}, config.list_separator, "data.label_column")["train"]
    read_notes = [note for split in parts.values() for note in split.notes]
    num_validation = (
        0 if {"validation", "labelled"} & parts.keys() else int(len(train.labels) * config.validation_fraction)
    )
    return Guess(
        data,
        sizes,
        all(mode in GREY_MODES for mode in modes),
        sum(len(split.labels) for split in parts.values()),
        len(train.labels) - num_validation,
        len(labels.labels),
        "labelled" not in parts and bool((labels.codes >= 0).all()),
        tuple(encode_attributes(rest, config)),
        row_names,
        (*dict.fromkeys((*skip_notes, *read_notes, *labels.notes, *notes_on_equal_images(train.images))),),
    )


def _places(path: Path) -> dict[str, Any]:
    """The reader and the absolute path, so that the config runs from any folder."""
    address = Address.parse(path)
    if address is not None:
        return {"name": kind_of(path), "train_path": str(address)}
    if not path.exists() and not is_pattern(path):
        raise UserError(f"{path}: no such file or folder (current folder: {Path.cwd()})")
    try:
        return {"name": kind_of(path), "train_path": os.path.abspath(path)}  # noqa: PTH100 (keeps links, takes out ..)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error


def _from_anywhere(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with absolute paths; addresses stay as they are."""
    is_local = {key: key in PATHS and isinstance(value, str) and Address.parse(value) is None
                for key, value in settings.items()}  # fmt: skip
    return {key: os.path.abspath(value) if is_local[key] else value for key, value in settings.items()}  # noqa: PTH100


def _data_config(data: Mapping[str, Any]) -> DataConfig:
    return parse_config({"data": data}, "data").data


def _read(data: dict[str, Any]) -> tuple[Parts, dict[str, Any], list[str]]:
    """The samples of each part; where some cannot be used, without these."""
    try:
        return read_splits(_data_config(data)), data, []
    except UserError as error:
        if "on_bad_image" in data:
            raise
        data = {**data, "on_bad_image": "skip"}
        try:
            parts = read_splits(_data_config(data))
        except UserError:
            raise error from None
        return parts, data, [f"left out: {str(error).partition('. ')[0]}"]


def _csv_columns(path: Path, data: Mapping[str, Any]) -> dict[str, Any]:
    """Which column of a CSV names files, below which folder, and which one holds the labels."""
    table = read_text_table(path).frame
    found: dict[str, Any] = {}
    if "path_column" not in data:
        names = [str(name) for name in table.columns]
        shares = {
            (name, root): _share_of_files(table[name], root)
            for name in sorted(names, key=lambda name: name != "path")
            for root in ([Path(data["image_root"])] if "image_root" in data else _roots(path, table[name]))
        }
        column, root = max(shares, key=lambda pair: shares[pair])
        if shares[column, root] == 0:
            raise UserError(
                f"{path}: no column names image files below {path.parent}; the table has: {', '.join(names)}. Name the "
                "column with data.path_column, and the folder with data.image_root"
            )
        found["path_column"] = column
        if "image_root" not in data and root != path.parent:
            found["image_root"] = os.path.abspath(root)  # noqa: PTH100
    if "label_column" not in data and "label_columns" not in data:
        lower = {str(name).lower(): str(name) for name in reversed(table.columns)}
        label = next((lower[name] for name in CSV_LABELS if name in lower), None)
        if label is not None:
            found["label_column"] = label
    return found


def _roots(path: Path, values: pd.Series) -> Iterator[Path]:
    """Folders below which the paths of a column may lie."""
    yield path.parent
    absolute = [text for text in path_texts(values) if os.path.isabs(text)]  # noqa: PTH117
    if absolute:
        yield Path(os.path.commonpath([Path(text).parent for text in absolute]))
        return
    try:
        yield from sorted(each for each in path.parent.iterdir() if each.is_dir())
    except OSError:  # a folder that may be entered and not listed
        return


def _share_of_files(values: pd.Series, root: Path) -> float:
    """Of the first values of a column, those that are files below the root."""
    names = path_texts(values)[:NUM_LOOKED_AT]
    paths = ImagePaths(root)
    return sum(bool(name) and paths.is_inside(paths.find(name)) for name in names) / max(1, len(names))


def _look_at(images: Images) -> tuple[tuple[tuple[int, int], ...], list[str], list[str]]:
    """Sizes and modes of some images from all over the data, and why others could not be decoded."""
    sizes, modes, bad = [], [], []
    for index in np.unique(np.linspace(0, len(images) - 1, NUM_LOOKED_AT).astype(int)):
        try:
            with Image.open(io.BytesIO(images.encode(int(index), None))) as image:
                sizes.append(image.size)
                modes.append(image.mode)
        except BadImageError as error:
            bad.append(str(error))
    if not sizes:
        raise UserError(f"none of the {len(bad)} images that were looked at can be decoded; the first: {bad[0]}")
    return tuple(sizes), modes, bad


def shorter_side(sizes: tuple[tuple[int, int], ...]) -> int:
    """The median of the images' shorter sides."""
    return int(median(min(size) for size in sizes))


def _names_rows(values: pd.Series) -> bool:
    """Whether nearly every row has a value of its own, such as an id."""
    if len(values) < FEWEST_ROWS or pd.api.types.is_float_dtype(values.dtype):
        return False
    try:
        return int(values.nunique()) > MOST_DISTINCT * len(values)
    except TypeError:  # lists, which are several values each
        return False
