"""Which columns of Parquet files hold the images and the labels, and what the codes of a column stand for.

Hugging Face's `datasets` writes the types of its columns into the schema's metadata (`huggingface`, as JSON); among
them are the names of classes. Opens no file.
"""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from clray.config.sections import DataConfig
from clray.errors import UserError

IMAGE_NAMES = ("image", "img")
LABEL_NAMES = ("label", "labels", "class", "fine_label", "target")
"""What such columns are called, the first that is there."""
Names = dict[str, tuple[str, ...]]
"""The classes of columns that hold codes."""


def image_column(files: list[Path], schemas: list[pa.Schema], wanted: str | None) -> str:
    """The column of the images: the one that is wanted, else `image`, `img`, or the only one that holds encoded images.

    Raises:
        UserError: none can be told from others.
    """
    if wanted is not None:
        return wanted
    present: list[str] = list(dict.fromkeys(name for schema in schemas for name in schema.names))
    usual = [name for name in IMAGE_NAMES if name in present]
    if usual:
        return usual[0]
    found = image_columns(schemas)
    if len(found) == 1:
        return found[0]
    which = f"several may hold images: {', '.join(found)}" if found else "none holds encoded images"
    raise UserError(
        f"{files[0]}: no column 'image', and {which}; the table has: {', '.join(present)}. Name the column of the "
        "images with data.image_column"
    )


def image_columns(schemas: list[pa.Schema]) -> list[str]:
    """The columns that may hold encoded images."""
    present: list[str] = list(dict.fromkeys(name for schema in schemas for name in schema.names))
    return [name for name in present if any(_may_hold_images(schema, name) for schema in schemas)]


def label_column(schemas: list[pa.Schema], wanted: str | None) -> str | None:
    """The column of the labels: the one that is wanted, else by its usual names, else the only one with classes."""
    present = dict.fromkeys(name for schema in schemas for name in schema.names)
    if wanted is not None:
        return wanted
    usual = [name for name in LABEL_NAMES if name in present]
    of_classes = list(dict.fromkeys(name for schema in schemas for name in class_names(schema)))
    return usual[0] if usual else of_classes[0] if len(of_classes) == 1 else None


def note_on(path: Path, images: str, labels: str | None, config: DataConfig) -> list[str]:
    """What was found, where it was not asked for and is not what is usual."""
    is_found = (config.image_column is None and images != "image") or (
        config.label_column is None and labels not in ("label", None)
    )
    of_labels = "" if labels is None else f", and labels from {labels}"
    return [f"{path}: images are read from column {images}{of_labels}"] if is_found else []


def classes_of(schemas: list[pa.Schema]) -> list[Names]:
    """The names of classes for each of the files of a data set; one that has none holds what all others agree on."""
    own = [class_names(schema) for schema in schemas]
    known: dict[str, set[tuple[str, ...]]] = {}
    for each in own:
        for name, classes in each.items():
            known.setdefault(name, set()).add(classes)
    agreed = {name: next(iter(found)) for name, found in known.items() if len(found) == 1}
    return [{**agreed, **each} for each in own]


def class_names(schema: pa.Schema) -> Names:
    """The names of the classes of each column of codes, from Hugging Face's metadata; empty where there are none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: _names_in(features.get(name)) for name in schema.names}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):  # metadata of another form
        return {}
    return {name: names for name, names in found.items() if names}


def with_names(column: pa.ChunkedArray, names: tuple[str, ...], where: str) -> pa.ChunkedArray:
    """Codes, or lists of them, as the names of their classes; -1 is missing, as `datasets` writes it.

    Raises:
        UserError: a code that has no name.
    """
    kind = column.type
    if pa.types.is_large_list(kind) and pa.types.is_integer(kind.value_type):
        parts = [_named_lists(chunk, names, where) for chunk in column.chunks]
        return pa.chunked_array(parts, pa.large_list(pa.large_string()))
    if not pa.types.is_integer(kind):
        return column  # such as names already
    return pa.chunked_array([_named(chunk, names, where) for chunk in column.chunks], pa.large_string())


def _named_lists(lists: pa.Array, names: tuple[str, ...], where: str) -> pa.Array:
    values = [
        None if codes is None else _named(pa.array(codes, pa.int64()), names, where) for codes in lists.to_pylist()
    ]
    return pa.array([None if each is None else each.to_pylist() for each in values], pa.large_list(pa.large_string()))


def _named(codes: pa.Array, names: tuple[str, ...], where: str) -> pa.Array:
    codes = codes.cast(pa.int64())
    codes = pc.if_else(pc.equal(codes, -1), pa.scalar(None, pa.int64()), codes)
    is_unknown = pc.or_(pc.less(codes, 0), pc.greater_equal(codes, len(names)))
    if pc.any(is_unknown).as_py():
        code = codes.filter(is_unknown)[0]
        raise UserError(f"{where} holds the class {code}, and its metadata name the classes 0 to {len(names) - 1}")
    return pa.array(names, pa.large_string()).take(codes)


def _names_in(feature: Any) -> tuple[str, ...]:
    """Of a `ClassLabel`, or a list of them in the ways in which `datasets` has written lists."""
    if isinstance(feature, list) and len(feature) == 1:
        return _names_in(feature[0])
    if not isinstance(feature, dict):
        return ()
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        return _names_in(feature.get("feature"))
    names = feature.get("names")
    if feature.get("_type") != "ClassLabel" or not isinstance(names, list):
        return ()
    # Two classes of one name would become one.
    is_right = all(isinstance(name, str) and name for name in names) and len(set(names)) == len(names)
    return tuple(names) if is_right else ()


def _may_hold_images(schema: pa.Schema, name: str) -> bool:
    if name not in schema.names:
        return False
    kind = schema.field(name).type
    if pa.types.is_struct(kind):
        return "bytes" in [field.name for field in kind]
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_binary(value) or pa.types.is_large_binary(value) or pa.types.is_binary_view(value))
