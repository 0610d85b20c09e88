"""Rows of vectors as a table: which they are, and in which file each lies."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from clray.errors import UserError
from clray.kmeans.vectors.source import Vectors, open_vectors


def check_table(path: Path) -> None:
    """Raise UserError where a table cannot be written without loss: the file exists, or its folder does not."""
    if path.exists():
        raise UserError(f"output: {path} exists; choose another file")
    if not path.parent.is_dir():
        raise UserError(f"output: {path.parent} is no folder; make it first")


def vectors_of(source: str | None, num_vectors: int | None) -> Vectors | None:
    """The files that were clustered, where they are still there and hold as many vectors."""
    if source is None or not Path(source).exists():
        return None
    found = open_vectors(Path(source))
    return found if len(found) == num_vectors else None


def write_rows(path: Path, rows: np.ndarray, columns: Mapping[str, np.ndarray], vectors: Vectors | None) -> None:
    """Write a CSV with `row`, over all files; the columns; and, of known vectors, `file` and the row in it."""
    places = [] if vectors is None else [*vectors.places(rows)]
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["row", *columns, *([] if vectors is None else ["file", "row_in_file"])])
        values = [rows.tolist(), *(each.tolist() for each in columns.values())]
        writer.writerows(zip(*values, *places, strict=True))
    partial.replace(path)
