"""CSV files that name an image file in each row, such as the metadata tables of the Cl-InfoNCE authors.

Text stays text: what pandas would take for a missing value, a number or an index is a value of its own.
"""

import csv
import os
from pathlib import Path

import pandas as pd

from clray.config.sections import DataConfig
from clray.data.images.decode import PixelRules
from clray.data.images.encoded import EncodedImages
from clray.data.readers.columns import from_texts, is_index
from clray.data.readers.places import is_inside, require_columns, require_file
from clray.data.readers.split import Split, no_labels
from clray.errors import UserError

MAX_NAMED = 5
COUNTS_ROW = "-1"


def read_metadata_csv(path: Path) -> pd.DataFrame:
    """A metadata table, without its rows of counts and without columns of row numbers.

    In the authors' tables the first column has no name and is the row's index; a row whose index is -1 carries no
    sample and is dropped. Tables with no such column are taken as they are. See `from_texts` for the types.

    Raises:
        UserError: missing file, ragged rows, wrong encoding, or no rows.
    """
    header, rows = _read_rows(path)
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise UserError(f"{path}: two columns are called {repeated[0]!r}; give each a name of its own")
    if is_index(header[0]):
        rows = [row for row in rows if row[0] not in (COUNTS_ROW, COUNTS_ROW + ".0")]
    if not rows:
        raise UserError(f"{path}: the table has no rows")
    columns = zip(*rows, strict=True)
    named = {name: from_texts(texts) for name, texts in zip(header, columns, strict=True) if not is_index(name)}
    if not named:
        raise UserError(f"{path}: the table has no columns with a name")
    return pd.DataFrame(named)


def _read_rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and rows, all of one length; lines with nothing on them are passed over."""
    require_file(path)
    rows: list[list[str]] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if row and rows and len(row) != len(rows[0]):
                    raise UserError(
                        f"{path}: not readable as CSV: line {reader.line_num} has {len(row)} fields and the header "
                        f"{len(rows[0])}. Put a text that holds a comma in quotes, and end no line with a comma"
                    )
                if row:
                    rows.append(row)
    except (csv.Error, UnicodeError, OSError) as error:
        line = f"line {reader.line_num}: " if isinstance(error, csv.Error) else ""
        raise UserError(f"{path}: not readable as CSV in UTF-8: {line}{error}") from error
    if not rows:
        raise UserError(f"{path}: not readable as CSV: the table has no columns")
    return rows[0], rows[1:]


def read_csv(path: Path, config: DataConfig) -> Split:
    """A metadata CSV with one image file per row; see `read_metadata_csv`.

    Raises:
        UserError: missing columns, or paths that do not exist or leave the image root; every such row is counted and
            the first ones named.
    """
    table = read_metadata_csv(path)
    label_column = config.label_column or "class"
    # The column that nobody asked for may be missing: the images have no labels then.
    require_columns(path, list(table.columns), {config.path_column, config.label_column or config.path_column})
    root = Path(config.image_root) if config.image_root else path.parent
    names = path_texts(table[config.path_column])
    files = [find_image(root, name) for name in names]
    outside = [row for row, file in enumerate(files) if not is_inside(file, root)]
    if outside:
        raise UserError(
            f"{path}: {len(outside)} of {len(table)} rows name no usable image: row {outside[0]}: "
            f"'{names[outside[0]]}' leaves the image root {root}"
        )
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
    rows = tuple(f"{path}, row {row} ({files[row]})" for row in kept)
    table = table.iloc[kept].reset_index(drop=True)
    columns = {str(name): table[name] for name in table.columns if name not in (config.path_column, label_column)}
    skipped = tuple(f"{path}: {reason}" for reason in problems.values())
    images = EncodedImages.of_files((files[row] for row in kept), PixelRules.of(config), rows)
    labels = table[label_column] if label_column in table.columns else no_labels(len(table))
    return Split(images, labels, columns, skipped=skipped)


def path_texts(values: pd.Series) -> list[str]:
    """A column of paths as they are written; empty where there is none."""
    return ["" if pd.isna(value) else str(value) for value in values]


def _problems(files: list[Path], root: Path, names: list[str]) -> dict[int, str]:
    """The rows that cannot be used, with the reason."""
    repeated = pd.Series(map(str, files)).duplicated()
    problems = {}
    for row, (name, file) in enumerate(zip(names, files, strict=True)):
        if not name.strip():
            problems[row] = f"row {row}: no path"
        elif not file.is_file():
            problems[row] = f"row {row}: no file {root / name}"
        elif repeated[row]:
            problems[row] = f"row {row}: the path '{name}' occurs in an earlier row"
    return problems


def find_image(root: Path, name: str) -> Path:
    """The file of a path below the root, resolved; `%2E` stands for a dot, as in the authors' tables."""
    for each in (name, name.replace("%2E", ".")):
        try:
            if (root / each).is_file():
                return (root / each).resolve()
        except (OSError, ValueError):  # a name that no file system takes
            break
    return Path(os.path.normpath(root.resolve() / name))
