"""Parquet files, one or many, whose rows hold encoded images with labels and attributes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.dataset import dataset

from clray.config.sections import DataConfig
from clray.data.images.decode import NoImage, PixelRules
from clray.data.images.encoded import EncodedImages, as_places, as_texts
from clray.data.images.streamed import RowGroup, StreamedImages, find_row_groups, image_bytes, image_paths
from clray.data.readers import hub_columns
from clray.data.readers.columns import as_plain, from_arrow, is_index, plain_type
from clray.data.readers.hub_columns import classes_of, with_names
from clray.data.readers.places import SplitName, base_of, is_inside, is_pattern, require_columns
from clray.data.readers.shards import PARQUET, shards_of
from clray.data.readers.split import Split, no_labels
from clray.data.remote.cache import present
from clray.errors import UserError


def read_parquet(path: Path, config: DataConfig, part: SplitName | None = None) -> Split:
    """A Parquet file, a folder of them, or those that a pattern such as `data/train-*.parquet` fits.

    The image column is `struct<bytes, path>`, as Hugging Face `datasets` writes it, or binary of any kind; files may
    differ in that. See `hub_columns` for how it and the labels are found, and for the names of classes. Where bytes are
    null, the path is read, below `data.image_root` (by default the table's folder). Columns other than image and label
    that hold scalars or lists of them are attributes, but for the row numbers that pandas leaves. Images of more than
    `data.memory_limit_mib` stay in their files.

    Args:
        part: where the files' names tell training from test files, those that are taken; None takes all.

    Raises:
        UserError: missing file or column, or a column of the wrong type.
    """
    files = shards_of(path, part, PARQUET)
    schemas = [_schema(file) for file in files]
    label_column = hub_columns.label_column(schemas, config.label_column) or "label"
    image_column = hub_columns.image_column(files, schemas, config.image_column)
    columns = []
    for file, schema in zip(files, schemas, strict=True):
        # The column that nobody asked for may be missing: the images have no labels then.
        require_columns(file, schema.names, {image_column, config.label_column or image_column})
        columns.append(_image_field(file, image_column, schema.field(image_column).type))
        if label_column in schema.names:
            _require_labels(file, schema.field(label_column))
    has_labels = any(label_column in schema.names for schema in schemas)
    names, index_notes = _described(schemas, keep=label_column)
    names = [name for name in names if name != image_column]
    read = dict.fromkeys([*names, label_column] if has_labels else names)
    table, missing_notes = _read_plain(path, files, schemas, list(read))
    with _readable(path):
        groups = find_row_groups(files, columns)
        num_rows = sum(group.num_rows for group in groups)
        if num_rows == 0:
            raise UserError(f"{path}: the table has no rows")
        labels = from_arrow(table[label_column]) if has_labels else no_labels(num_rows)
        attributes = {name: from_arrow(table[name]) for name in names if name != label_column}
    images: EncodedImages | StreamedImages
    path_notes: list[str] = []
    if sum(group.num_bytes for group in groups) > config.memory_limit_mib * 2**20:
        _require_small_groups(groups, config)
        rows = np.arange(num_rows)
        images = StreamedImages(groups, rows, PixelRules.of(config))
    else:
        images, path_notes = _read_images(path, files, image_column, config)
    found = hub_columns.note_on(path, image_column, label_column if has_labels else None, config)
    return Split(images, labels, attributes, (*found, *index_notes, *missing_notes, *path_notes))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What Arrow raises at damaged files becomes a UserError."""
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: not readable as Parquet: {error}") from error


def _schema(file: Path) -> pa.Schema:
    with _readable(file):
        schema = pq.read_schema(present(file))
        repeated = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if repeated:
            raise UserError(f"{file}: two columns are called {repeated[0]!r}; give each a name of its own")
        return schema


def _described(schemas: list[pa.Schema], keep: str | None = None) -> tuple[list[str], list[str]]:
    """Columns that hold plain values or lists of them, without pandas' row numbers, of which a note tells."""
    names: dict[str, None] = {}
    indices: dict[str, None] = {}
    for schema in schemas:
        of_pandas = _index_columns(schema)
        for field in schema:
            if plain_type(field.type) is None:
                continue
            is_row_number = field.name != keep and (field.name in of_pandas or is_index(field.name))
            (indices if is_row_number else names)[field.name] = None
    return list(names), [f"{', '.join(indices)}: pandas' row numbers are no attribute"] if indices else []


def _index_columns(schema: pa.Schema) -> set[str]:
    try:
        found = (schema.pandas_metadata or {}).get("index_columns", [])
        return {name for name in found if isinstance(name, str)}
    except (ValueError, AttributeError, TypeError):  # metadata that is no JSON, or of another form
        return set()


def _require_one_value(file: Path, field: pa.Field) -> None:
    kind = plain_type(field.type)
    if kind is None or pa.types.is_large_list(kind):
        raise UserError(
            f"{file}: column '{field.name}' must hold one value a row (text or numbers); it is {field.type}"
        )


def _require_labels(file: Path, field: pa.Field) -> None:
    """One label a row, or lists of several."""
    kind = plain_type(field.type)
    value = kind.value_type if kind is not None and pa.types.is_large_list(kind) else None
    if value is None or pa.types.is_floating(value) or pa.types.is_large_list(value):
        _require_one_value(file, field)


def _read_plain(
    path: Path, files: list[Path], schemas: list[pa.Schema], names: list[str]
) -> tuple[pa.Table, list[str]]:
    """These columns of all files, in their plain types; a file that lacks one has missing values there."""
    tables, lacking = [], dict.fromkeys(names, 0)
    for file, schema, own in zip(files, schemas, classes_of(schemas), strict=True):
        there = [name for name in names if name in schema.names and plain_type(schema.field(name).type) is not None]
        for name in set(names) - set(there):
            lacking[name] += 1
        with _readable(file):
            table = dataset(present(file), format="parquet").to_table(columns=there)
            plain = {name: as_plain(table[name]) for name in there}
        named = {
            name: with_names(column, own[name], f"{file}: column '{name}'") if name in own else column
            for name, column in plain.items()
        }
        tables.append(pa.table(named) if named else table)
    try:
        whole = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise UserError(f"{path}: the types of a column differ between the files: {error}") from error
    notes = [
        f"{path}: {count} of {len(files)} files have no column {name}; its values are missing there"
        for name, count in lacking.items()
        if count
    ]
    return whole, notes


def read_plain_columns(path: Path, names: Sequence[str]) -> pa.Table:
    """Columns with one value a row, of all files of a path.

    Raises:
        UserError: a missing file or column, or a column of another type.
    """
    files = shards_of(path, None, PARQUET)
    schemas = [_schema(file) for file in files]
    for file, schema in zip(files, schemas, strict=True):
        require_columns(file, schema.names, set(names))
        for name in names:
            _require_one_value(file, schema.field(name))
    return _read_plain(path, files, schemas, list(dict.fromkeys(names)))[0]


def _image_field(file: Path, name: str, kind: pa.DataType) -> str:
    """The column, or the field of it, that holds the encoded images."""
    is_struct = pa.types.is_struct(kind) and "bytes" in [field.name for field in kind]
    of_bytes = kind.field("bytes").type if is_struct else kind
    if pa.types.is_dictionary(of_bytes):
        of_bytes = of_bytes.value_type
    is_binary: list[Callable[[pa.DataType], bool]] = [
        pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view,
    ]  # fmt: skip
    if not (any(test(of_bytes) for test in is_binary) or (is_struct and pa.types.is_null(of_bytes))):
        raise UserError(
            f"{file}: column '{name}' must hold encoded images (binary or struct<bytes, path>); it is {of_bytes}"
        )
    return f"{name}.bytes" if is_struct else name


def _read_images(
    path: Path, files: list[Path], image_column: str, config: DataConfig
) -> tuple[EncodedImages, list[str]]:
    """All encoded images; where bytes are null and there is a path, the file below the root that it names."""
    blobs: list[pa.Array] = []
    places: list[str | None] = []
    rows: list[str] = []
    for file in files:
        with _readable(file):
            column = dataset(present(file), format="parquet").to_table(columns=[image_column])[image_column]
            for chunk in column.chunks:
                blobs.append(image_bytes(chunk))
                places += image_paths(chunk)
        rows += [f"{file}, row {row}" for row in range(len(column))]
    encoded = pa.concat_arrays(blobs)
    missing = [row for row in np.flatnonzero(encoded.is_null().to_numpy(zero_copy_only=False)) if places[row]]
    if not missing:
        return EncodedImages.of_bytes(encoded, PixelRules.of(config), rows), []
    root = Path(config.image_root) if config.image_root else _folder_of(path)
    found: list[Path | NoImage | None] = [None] * len(rows)
    for row in missing:
        found[row] = _file_of(root, str(places[row]))
    images = EncodedImages(
        as_texts(rows),
        PixelRules.of(config),
        encoded,
        files=as_places(str(each) if isinstance(each, Path) else None for each in found),
        reasons=pa.array([each.reason if isinstance(each, NoImage) else None for each in found], pa.large_string()),
    )
    note = f"{path}: the bytes of {len(missing)} images are not embedded; they are read from their paths below {root}"
    return images, [note]


def _folder_of(path: Path) -> Path:
    return base_of(path) if is_pattern(path) else path if path.is_dir() else path.parent


def _file_of(root: Path, name: str) -> Path | NoImage:
    try:
        file = (root / name).resolve()
        if not is_inside(file, root):
            return NoImage(f"its bytes are not embedded, and its path {name!r} leaves the image root {root}")
        if file.is_file():
            return file
    except (OSError, ValueError, RuntimeError):  # a name that no file system takes
        pass
    return NoImage(f"its bytes are not embedded, and there is no file {name!r} below {root} (data.image_root)")


def _require_small_groups(groups: tuple[RowGroup, ...], config: DataConfig) -> None:
    largest = max(groups, key=lambda group: group.num_bytes)
    needed = config.shuffle_row_groups * largest.num_bytes
    if needed > config.memory_limit_mib * 2**20:
        raise UserError(
            f"{largest.path}: row group {largest.number} holds {largest.num_bytes / 2**20:.0f} MiB of images, and "
            f"data.shuffle_row_groups={config.shuffle_row_groups} of them exceed data.memory_limit_mib="
            f"{config.memory_limit_mib}; write smaller row groups, or change either number"
        )


def read_known(
    path: Path, files: list[Path], config: DataConfig, *, num_rows: int
) -> tuple[pd.Series | None, dict[str, pd.Series], tuple[str, ...]]:
    """What is known of the rows besides what they hold: labels (None where there are none), attributes, and notes."""
    schemas = [_schema(file) for file in files]
    label_column = hub_columns.label_column(schemas, config.label_column)
    for file, schema in zip(files, schemas, strict=True):
        if label_column is not None:
            require_columns(file, schema.names, {label_column})
            _require_labels(file, schema.field(label_column))
    names, notes = _described(schemas, keep=label_column)
    vectors = {name for schema in schemas for name in names if _holds_vectors(schema, name)}
    names = [name for name in names if name not in vectors]
    if not names:
        return None, {}, tuple(notes)
    table, missing_notes = _read_plain(path, files, schemas, names)
    if table.num_rows != num_rows:
        raise UserError(f"{path}: changed while it was read")
    with _readable(path):
        columns = {name: from_arrow(table[name]) for name in names}
    labels = None if label_column is None else columns.pop(label_column)
    return labels, columns, (*notes, *missing_notes)


def _holds_vectors(schema: pa.Schema, name: str) -> bool:
    """Whether a column holds lists of floats, which are vectors and no attribute."""
    kind = plain_type(schema.field(name).type) if name in schema.names else None
    return kind is not None and pa.types.is_large_list(kind) and bool(pa.types.is_floating(kind.value_type))
