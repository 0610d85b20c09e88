"""Lists of images: a CSV, TSV or JSON lines that names an image file in each row, with its labels and attributes."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clray.config.sections import DataConfig
from clray.data.images.decode import PixelRules
from clray.data.images.encoded import EncodedImages
from clray.data.readers.columns import is_list
from clray.data.readers.image_paths import ImagePaths
from clray.data.readers.places import require_columns
from clray.data.readers.split import Split, no_labels
from clray.data.readers.text_tables import read_text_table
from clray.errors import UserError

MAX_NAMED = 5
PATH_NAMES = ("path", "file_name", "filename", "file", "filepath", "file_path", "image_path", "image")
LABEL_NAMES = ("class", "label", "labels", "target")
"""What such columns are called, the first that is there."""


def read_list(path: Path, config: DataConfig) -> Split:
    """A table with one image file per row, below `data.image_root` (by default the table's folder).

    Columns other than path and label are attributes.

    Raises:
        UserError: missing columns, or paths that do not exist or leave the image root; every such row is counted and
            the first ones named.
    """
    read = read_text_table(path)
    table, header = read.frame, list(map(str, read.frame.columns))
    path_column, label_column = path_column_of(path, header, config), label_column_of(header, config)
    require_columns(path, header, {name for name in (path_column, label_column) if name is not None})
    root = Path(config.image_root) if config.image_root else path.parent
    names = path_texts(table[path_column])
    files = _found(path, names, root)
    problems = _problems(files, root, names)
    if problems and config.on_bad_image == "error":
        shown = "; ".join(list(problems.values())[:MAX_NAMED])
        raise UserError(
            f"{path}: {len(problems)} of {len(table)} rows name no usable image: {shown}. Put them right, or leave "
            "them out with data.on_bad_image=skip"
        )
    kept = [row for row in range(len(table)) if row not in problems]
    if not kept:
        raise UserError(f"{path}: none of its {len(table)} rows can be used; the first: {problems[0]}")
    table = table.iloc[kept].reset_index(drop=True)
    columns = {name: table[name] for name in header if name not in (path_column, label_column)}
    skipped = tuple(f"{path}: {reason}" for reason in problems.values())
    rows = (f"{path}, row {row} ({files[row]})" for row in kept)
    images = EncodedImages.of_files((str(files[row]) for row in kept), PixelRules.of(config), rows)
    labels = no_labels(len(table)) if label_column is None else table[label_column]
    return Split(images, labels, columns, read.notes, skipped)


def path_column_of(path: Path, header: Sequence[str], config: DataConfig) -> str:
    """The column of the paths: `data.path_column`, or where that is not named and not there, one by its usual names."""
    if config.path_column in header or config.path_column != PATH_NAMES[0]:
        return config.path_column
    found = next((name for name in PATH_NAMES if name in header), None)
    if found is None:
        raise UserError(
            f"{path}: no column 'path'; the table has: {', '.join(header)}. Its first line must name the columns; name "
            "that of the image files with data.path_column"
        )
    return found


def label_column_of(header: Sequence[str], config: DataConfig) -> str | None:
    """The column of the labels: `data.label_column`, or else one by its usual names; None where there is none."""
    if config.label_column is not None:
        return config.label_column
    return next((name for name in LABEL_NAMES if name in header), None)


def path_texts(values: pd.Series) -> list[str]:
    """A column of paths as they are written; empty where there is none, or several."""
    return ["" if is_list(value) or pd.isna(value) else str(value) for value in values]


def _found(path: Path, names: list[str], root: Path) -> list[str | None]:
    """The file of each path; None where there is none."""
    paths = ImagePaths(root)
    files = [paths.find(name) if name.strip() else None for name in names]
    outside = [
        row
        for row, (name, file) in enumerate(zip(names, files, strict=True))
        if (paths.leaves_root(name) if file is None else not paths.is_inside(file))
    ]
    if outside:
        raise UserError(
            f"{path}: {len(outside)} of {len(names)} rows name no usable image: row {outside[0]}: "
            f"'{names[outside[0]]}' leaves the image root {root}; name the folder of the images with data.image_root"
        )
    return files


def _problems(files: list[str | None], root: Path, names: list[str]) -> dict[int, str]:
    """The rows that cannot be used, with the reason."""
    problems: dict[int, str] = {}
    seen: set[str] = set()
    for row, (name, file) in enumerate(zip(names, files, strict=True)):
        if not name.strip():
            problems[row] = f"row {row}: no path"
        elif file is None:
            problems[row] = f"row {row}: no file {root / name}"
        elif file in seen:
            problems[row] = f"row {row}: the path '{name}' occurs in an earlier row"
        else:
            seen.add(file)
    return problems
