"""Tables that name images, labels and attributes: Parquet and the metadata CSV of the Cl-InfoNCE authors.

Reads and validates tables; decodes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.dataset import dataset

from clray.config import UserError
from clray.data.images import EncodedImages
from clray.sections import DataConfig


@dataclass(frozen=True)
class Table:
    """Rows of a data set before their images are decoded: columns hold the values as they stand in the file."""

    images: EncodedImages
    labels: pd.Series
    columns: dict[str, pd.Series]


def read_parquet(path: Path, config: DataConfig) -> Table:
    """A Parquet file, or a folder of them, with encoded images.

    The image column is `struct<bytes, path>`, as Hugging Face `datasets` writes it, or plain binary. Columns other than
    image and label that hold scalars are attributes.

    Raises:
        UserError: missing file or column, or a column of the wrong type.
    """
    _require_exists(path)
    label_column = config.label_column or "label"
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not readable as Parquet: {error}") from error
    _require_columns(path, table.column_names, {config.image_column, label_column})
    if table.num_rows == 0:
        raise UserError(f"{path}: the table has no rows")
    image = table[config.image_column].combine_chunks()
    if pa.types.is_struct(image.type) and "bytes" in [field.name for field in image.type]:
        image = image.field("bytes")
    if not (pa.types.is_binary(image.type) or pa.types.is_large_binary(image.type)):
        raise UserError(
            f"{path}: column '{config.image_column}' must hold encoded images (binary or struct<bytes, path>); "
            f"it is {image.type}"
        )
    columns = {
        name: table[name].to_pandas()
        for name in table.column_names
        if name not in (config.image_column, label_column) and not pa.types.is_nested(table.schema.field(name).type)
    }
    rows = tuple(f"{path}, row {row}" for row in range(table.num_rows))
    return Table(EncodedImages(image, rows, config.image_size), table[label_column].to_pandas(), columns)


def read_metadata_csv(path: Path) -> pd.DataFrame:
    """A metadata table, without its rows of counts.

    In the authors' tables the first column has no name and is the row's index; a row whose index is -1 carries no
    sample and is dropped. Tables with no such column are taken as they are.

    Raises:
        UserError: missing file, ragged rows, wrong encoding, or no rows.
    """
    _require_exists(path)
    try:
        table = pd.read_csv(path, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as CSV in UTF-8: {error}") from error
    if str(table.columns[0]).startswith("Unnamed:"):
        table = table[table[table.columns[0]] != -1].drop(columns=table.columns[0]).reset_index(drop=True)
    if table.empty:
        raise UserError(f"{path}: the table has no rows")
    return table


def read_columns(path: Path, names: Sequence[str]) -> list[pd.Series]:
    """Some columns of a CSV, or of a Parquet file or folder, in the order of `names`.

    Raises:
        UserError: a missing file or column (naming those there are), or an unreadable file.
    """
    _require_exists(path)
    if not path.is_dir() and path.suffix != ".parquet":
        frame = read_metadata_csv(path)
    else:
        try:
            table = dataset(path)
            _require_columns(path, table.schema.names, set(names))
            frame = table.to_table(columns=list(dict.fromkeys(names))).to_pandas()
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path}: not readable as Parquet: {error}") from error
    _require_columns(path, list(frame.columns), set(names))
    return [frame[name] for name in names]


def read_csv(path: Path, config: DataConfig) -> Table:
    """A metadata CSV with one image file per row; see `read_metadata_csv`.

    Raises:
        UserError: missing columns, or paths that do not exist or leave the image root; every such row is counted and
            the first ones named.
    """
    table = read_metadata_csv(path)
    label_column = config.label_column or "class"
    _require_columns(path, list(table.columns), {config.path_column, label_column})
    root = Path(config.image_root) if config.image_root else path.parent
    files, problems = [], []
    for row, name in enumerate(table[config.path_column].astype(str)):
        file = (root / name).resolve()
        if not file.is_relative_to(root.resolve()):
            problems.append(f"row {row}: '{name}' leaves the image root {root}")
        elif not file.is_file() and config.on_bad_image == "error":
            problems.append(f"row {row}: no file {root / name}")
        files.append(file)
    if problems:
        shown = "; ".join(problems[:5])
        raise UserError(f"{path}: {len(problems)} of {len(table)} rows name no usable image: {shown}")
    columns = {str(name): table[name] for name in table.columns if name not in (config.path_column, label_column)}
    rows = tuple(f"{path}, row {row} ({file})" for row, file in enumerate(files))
    return Table(EncodedImages(files, rows, config.image_size), table[label_column], columns)


def encode_values(values: pd.Series) -> np.ndarray:
    """Values as codes 0..C-1 in sorted order, int64 [N]; missing values share a code of their own."""
    return encode_names(values)[0]


def encode_names(values: pd.Series) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes as `encode_values` gives them, and the values they stand for."""
    codes, distinct = pd.factorize(values, sort=True, use_na_sentinel=False)
    return codes.astype(np.int64), tuple(map(str, distinct))


def _require_exists(path: Path) -> None:
    if not path.exists():
        raise UserError(f"{path}: no such file (current folder: {Path.cwd()})")


def _require_columns(path: Path, present: list[str], needed: set[str]) -> None:
    missing = sorted(needed - set(present))
    if missing:
        raise UserError(f"{path}: no column {', '.join(map(repr, missing))}; the table has: {', '.join(present)}")
