"""Tables that name images, labels and attributes: Parquet and the metadata CSV of the Cl-InfoNCE authors.

Reads and validates tables; decodes nothing.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow.dataset import dataset

from clray.config.sections import DataConfig
from clray.data.images.encoded import EncodedImages
from clray.data.images.streamed import RowGroup, StreamedImages, find_row_groups, image_bytes
from clray.errors import UserError

MAX_NAMED = 5


@dataclass(frozen=True)
class Table:
    """Rows of a data set before their images are decoded: columns hold the values as they stand in the file.

    `skipped` are the reasons of the rows left out under `data.on_bad_image: skip`.
    """

    images: EncodedImages | StreamedImages
    labels: pd.Series
    columns: dict[str, pd.Series]
    skipped: tuple[str, ...] = ()


def read_parquet(path: Path, config: DataConfig) -> Table:
    """A Parquet file, or a folder of them, with encoded images.

    The image column is `struct<bytes, path>`, as Hugging Face `datasets` writes it, or plain binary. Columns other than
    image and label that hold scalars or lists of them are attributes. Images of more than `data.memory_limit_mib` stay
    in their files.

    Raises:
        UserError: missing file or column, or a column of the wrong type.
    """
    _require_exists(path)
    label_column = config.label_column or "label"
    try:
        tables = dataset(path, format="parquet")
        _require_columns(path, tables.schema.names, {config.image_column, label_column})
        column = _image_field(path, config.image_column, tables.schema.field(config.image_column).type)
        described = [name for name in _described_columns(tables.schema) if name != config.image_column]
        table = tables.to_table(columns=list(dict.fromkeys([*described, label_column])))
        if table.num_rows == 0:
            raise UserError(f"{path}: the table has no rows")
        groups = find_row_groups([Path(file) for file in tables.files], column)
        images: EncodedImages | StreamedImages
        if sum(group.num_bytes for group in groups) > config.memory_limit_mib * 2**20:
            _require_small_groups(groups, config)
            images = StreamedImages(groups, np.arange(table.num_rows), column, config.image_size)
        else:
            encoded = tables.to_table(columns=[config.image_column])[config.image_column].combine_chunks()
            rows = tuple(f"{path}, row {row}" for row in range(table.num_rows))
            images = EncodedImages(image_bytes(encoded), rows, config.image_size)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"{path}: not readable as Parquet: {error}") from error
    columns = {name: table[name].to_pandas() for name in described if name != label_column}
    return Table(images, table[label_column].to_pandas(), columns)


def read_descriptions(path: Path, config: DataConfig) -> pd.DataFrame:
    """All columns of a CSV, or of a Parquet file or folder, but the images; for what needs no images.

    Raises:
        UserError: a missing file or label column, or an unreadable file.
    """
    _require_exists(path)
    if not path.is_dir() and path.suffix != ".parquet":
        table = read_metadata_csv(path)
        label_column = config.label_column or "class"
        table = table.drop(columns=config.path_column, errors="ignore")
    else:
        try:
            tables = dataset(path, format="parquet")
            names = [name for name in _described_columns(tables.schema) if name != config.image_column]
            table = tables.to_table(columns=names).to_pandas()
        except (pa.ArrowInvalid, OSError) as error:
            raise UserError(f"{path}: not readable as Parquet: {error}") from error
        label_column = config.label_column or "label"
    _require_columns(path, [str(name) for name in table.columns], {label_column})
    return table.rename(columns={label_column: "label"} if label_column != "label" else {})


def _described_columns(schema: pa.Schema) -> list[str]:
    """Columns that hold plain values or lists of them."""

    def is_plain(kind: pa.DataType) -> bool:
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return is_plain(kind.value_type)
        return not (pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    return [field.name for field in schema if is_plain(field.type)]


def _image_field(path: Path, name: str, kind: pa.DataType) -> str:
    """The column, or the field of it, that holds the encoded images."""
    is_struct = pa.types.is_struct(kind) and "bytes" in [field.name for field in kind]
    of_bytes = kind.field("bytes").type if is_struct else kind
    if not (pa.types.is_binary(of_bytes) or pa.types.is_large_binary(of_bytes)):
        raise UserError(
            f"{path}: column '{name}' must hold encoded images (binary or struct<bytes, path>); it is {of_bytes}"
        )
    return f"{name}.bytes" if is_struct else name


def _require_small_groups(groups: tuple[RowGroup, ...], config: DataConfig) -> None:
    largest = max(groups, key=lambda group: group.num_bytes)
    needed = config.shuffle_row_groups * largest.num_bytes
    if needed > config.memory_limit_mib * 2**20:
        raise UserError(
            f"{largest.path}: row group {largest.number} holds {largest.num_bytes / 2**20:.0f} MiB of images, and "
            f"data.shuffle_row_groups={config.shuffle_row_groups} of them exceed data.memory_limit_mib="
            f"{config.memory_limit_mib}; write smaller row groups, or change either number"
        )


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
    except (ValueError, OSError) as error:  # of the parser, of the decoder, no columns at all, or a folder
        raise UserError(f"{path}: not readable as CSV in UTF-8: {error}") from error
    if len(table.columns) == 0:
        raise UserError(f"{path}: the table has no columns")
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
    _require_columns(path, list(map(str, table.columns)), {config.path_column, label_column})
    root = Path(config.image_root) if config.image_root else path.parent
    names = table[config.path_column].astype(str)
    files = [find_image(root, name) for name in names]
    outside = [row for row, file in enumerate(files) if not is_inside(file, root)]
    if outside:
        raise UserError(
            f"{path}: {len(outside)} of {len(table)} rows name no usable image: row {outside[0]}: "
            f"'{names[outside[0]]}' leaves the image root {root}"
        )
    problems = _problems(table, files, label_column, root, names)
    if problems and config.on_bad_image == "error":
        shown = "; ".join(list(problems.values())[:MAX_NAMED])
        raise UserError(
            f"{path}: {len(problems)} of {len(table)} rows name no usable image: {shown}. Put them right, or leave "
            "them out with --set data.on_bad_image=skip"
        )
    kept = [row for row in range(len(table)) if row not in problems]
    if not kept:
        raise UserError(f"{path}: none of its {len(table)} rows can be used; the first: {problems[0]}")
    rows = tuple(f"{path}, row {row} ({files[row]})" for row in kept)
    table = table.iloc[kept].reset_index(drop=True)
    columns = {str(name): table[name] for name in table.columns if name not in (config.path_column, label_column)}
    skipped = tuple(f"{path}: {reason}" for reason in problems.values())
    images = EncodedImages([files[row] for row in kept], rows, config.image_size)
    return Table(images, table[label_column], columns, skipped)


def _problems(
    table: pd.DataFrame, files: list[Path], label_column: str, root: Path, names: pd.Series
) -> dict[int, str]:
    """The rows that cannot be used, with the reason."""
    repeated = pd.Series(map(str, files)).duplicated()
    problems = {}
    for row, (name, file, label) in enumerate(zip(names, files, table[label_column], strict=True)):
        if not file.is_file():
            problems[row] = f"row {row}: no file {root / name}"
        elif repeated[row]:
            problems[row] = f"row {row}: the path '{name}' stands in an earlier row"
        elif label != label or label is None:
            problems[row] = f"row {row}: no {label_column}"
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


def is_inside(file: Path, root: Path) -> bool:
    """Whether a resolved file lies below the root, symbolic links followed."""
    return file.is_relative_to(root.resolve())


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
