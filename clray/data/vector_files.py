"""Files of vectors, `.npy` and Parquet: checked by their headers, read in blocks, never whole.

Plain reads instead of memory maps: mapped pages count as the reader's memory, and a shard promises a bound on its own.
"""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from clray.data.remote.cache import present
from clray.errors import UserError

NUMBER_LISTS = "a list or fixed-size list of float16, float32, float64, int8 or uint8"


class VectorFile(Protocol):
    """A file of vectors; describes it, holds no open handle.

    Vectors come in the type of the file, bfloat16 as float32. Reading raises UserError where the file was changed or
    damaged since its header was read.
    """

    @property
    def path(self) -> str: ...

    @property
    def num_rows(self) -> int: ...

    @property
    def dim(self) -> int: ...

    @property
    def itemsize(self) -> int:
        """Bytes of a coordinate."""
        ...

    def blocks(self, start: int, stop: int, num_rows: int) -> Iterator[np.ndarray]:
        """Rows start..stop in order, [at most num_rows, dim] each."""
        ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Copies of ascending rows, [m, dim]."""
        ...


@dataclass(frozen=True)
class NpyFile:
    """A `.npy` file; two-byte voids are read as bfloat16, which NumPy itself cannot name.

    Attributes:
        dtype: NumPy's type string.
        offset: bytes before the first vector.
    """

    path: str
    num_rows: int
    dim: int
    dtype: str
    offset: int

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    def blocks(self, start: int, stop: int, num_rows: int) -> Iterator[np.ndarray]:
        with self._reading(), present(Path(self.path)).open("rb") as file:
            file.seek(self.offset + start * self.dim * self.itemsize)
            for row in range(start, stop, num_rows):
                count = (min(row + num_rows, stop) - row) * self.dim
                values = np.fromfile(file, self.dtype, count)
                if len(values) < count:
                    raise UserError(f"{self.path}: ends before row {stop}; it was cut while it was read")
                yield _floats(values.reshape(-1, self.dim))

    def take(self, rows: np.ndarray) -> np.ndarray:
        with self._reading():
            mapped = np.memmap(self.path, self.dtype, "r", self.offset, (self.num_rows, self.dim))
        return _floats(mapped[rows])

    def _reading(self) -> AbstractContextManager[None]:
        return _told_as_users_error(self.path, OSError, ValueError)


@dataclass(frozen=True)
class ParquetFile:
    """A list column of a Parquet file, as Hugging Face `datasets` and pyarrow write it."""

    path: str
    num_rows: int
    dim: int
    itemsize: int
    column: str

    @cached_property
    def _first_rows(self) -> np.ndarray:
        """First row of each row group, and the number of rows."""
        metadata = pq.read_metadata(present(Path(self.path)))
        return np.cumsum([0, *(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))])

    def blocks(self, start: int, stop: int, num_rows: int) -> Iterator[np.ndarray]:
        first, last = np.searchsorted(self._first_rows, [start, stop - 1], side="right") - 1
        row = int(self._first_rows[first])
        # Without pre-buffering pages are read as they are needed, so a large row group costs no more memory.
        with (
            _told_as_users_error(self.path, pa.ArrowException, OSError),
            pq.ParquetFile(present(Path(self.path)), pre_buffer=False, buffer_size=1 << 20) as file,
        ):
            for batch in file.iter_batches(
                num_rows, row_groups=range(first, last + 1), columns=[self.column], use_threads=False
            ):
                vectors = self._to_array(batch.column(0), row)
                yield vectors[max(start - row, 0) : max(stop - row, 0)]
                row += batch.num_rows

    def take(self, rows: np.ndarray) -> np.ndarray:
        taken = []
        groups = np.searchsorted(self._first_rows, rows, side="right") - 1
        for group in np.unique(groups):
            start, stop = int(self._first_rows[group]), int(self._first_rows[group + 1])
            here = rows[groups == group]
            for block in self.blocks(start, stop, 8192):
                inside = here[(here >= start) & (here < start + len(block))] - start
                taken.append(block[inside])
                start += len(block)
        return np.concatenate(taken)

    def _to_array(self, column: Any, first_row: int) -> np.ndarray:
        if column.null_count:
            row = first_row + int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
            raise UserError(f"{self.path}: column {self.column!r} is empty in row {row}")
        lengths = np.asarray(column.value_lengths())
        if (lengths != self.dim).any():
            row = int(np.argmax(lengths != self.dim))
            raise UserError(
                f"{self.path}: row {first_row + row} of column {self.column!r} has {lengths[row]} dimensions, "
                f"the rows before it have {self.dim}"
            )
        # A null within a list becomes NaN, which is refused or left out as any other.
        flat: np.ndarray = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(-1, self.dim)


def open_npy(path: Path) -> NpyFile:
    """Read the header of a `.npy` file of vectors [N, dim].

    Raises:
        UserError: a file that is none, is truncated, or holds another shape, order or type.
    """
    check_is_file(path)
    try:
        with path.open("rb") as file:
            shape, is_fortran, dtype = _read_header(file)
            offset = file.tell()
    except Exception as error:  # NumPy parses the header as a Python literal, which fails in many ways
        raise UserError(f"{path}: not a .npy file, or one with a damaged header: {_first_line(error)}") from error
    if len(shape) != 2 or shape[0] < 0 or shape[1] < 1:
        raise UserError(f"{path}: expected vectors of shape [N, dim]; got {list(shape)}")
    if not (is_bfloat16(dtype) or holds_vectors(dtype)):
        raise UserError(f"{path}: {wrong_dtype(dtype)}")
    if is_fortran and shape[0] > 1:
        raise UserError(
            f"{path}: stored column by column (Fortran order), which cannot be read in blocks of rows. "
            "Write it again with numpy.save(path, numpy.ascontiguousarray(vectors))"
        )
    expected = offset + shape[0] * shape[1] * dtype.itemsize
    if path.stat().st_size < expected:
        raise UserError(
            f"{path}: truncated; its header promises {shape[0]} x {shape[1]} {dtype} ({expected} bytes), "
            f"the file has {path.stat().st_size} bytes"
        )
    return NpyFile(str(path.resolve()), shape[0], shape[1], dtype.str, offset)


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version in ((2, 0), (3, 0)):  # they differ in the encoding of field names, which no array of floats has
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"format version {version[0]}.{version[1]}")


def open_parquet(path: Path, column: str | None = None) -> ParquetFile:
    """Read the schema of a Parquet file with a column of vectors, and the first row for their dimension.

    Raises:
        UserError: a file that is none, a missing column, one of another type, or a choice that is not clear.
    """
    check_is_file(path)
    with (
        _told_as_users_error(path, pa.ArrowException, OSError, what="not a complete Parquet file"),
        pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as file,
    ):
        schema, num_rows = file.schema_arrow, file.metadata.num_rows
        name = _column_of_vectors(path, schema, column)
        kind = schema.field(name).type
        dim = kind.list_size if pa.types.is_fixed_size_list(kind) else 0
        if dim == 0 and num_rows:
            first = next(file.iter_batches(1, columns=[name])).column(0)
            dim = len(first[0]) if first[0].is_valid else 0
    if num_rows and dim == 0:
        raise UserError(f"{path}: row 0 of column {name!r} is empty")
    return ParquetFile(str(path.resolve()), num_rows, dim, kind.value_type.bit_width // 8, name)


def vector_columns(schema: pa.Schema) -> list[str]:
    """The columns of a Parquet file that hold lists of floats."""
    return [field.name for field in schema if _holds_floats(field.type)]


def _column_of_vectors(path: Path, schema: pa.Schema, column: str | None) -> str:
    # Lists of bytes may be pixels: they are vectors where a column is named, or nothing else can be.
    candidates = vector_columns(schema) or [field.name for field in schema if _holds_bytes(field.type)]
    if column is None and len(candidates) != 1:
        raise UserError(f"{path}: name the `column` of vectors; candidates: {_listed(candidates)}")
    name = column if column is not None else candidates[0]
    if schema.names.count(name) != 1:
        found = "no column" if name not in schema.names else "several columns"
        raise UserError(f"{path}: {found} {name!r}; columns that hold vectors: {_listed(candidates)}")
    if not (_holds_floats(schema.field(name).type) or _holds_bytes(schema.field(name).type)):
        raise UserError(f"{path}: column {name!r} is {schema.field(name).type}; expected {NUMBER_LISTS}")
    return name


def check_is_file(path: Path) -> None:
    """Raise UserError unless the path is a file that can be read from any place; a pipe would wait for ever."""
    with _told_as_users_error(path, OSError, ValueError):
        if not present(path).exists():
            raise UserError(f"{path}: no such file (current folder: {Path.cwd()})")
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "a pipe, socket or device"
            raise UserError(f"{path}: expected a file; got {kind}")


def is_float(dtype: np.dtype) -> bool:
    """Whether this is float16, float32 or float64, in either byte order."""
    return dtype.kind == "f" and dtype.itemsize <= 8


def holds_vectors(dtype: np.dtype) -> bool:
    """Whether vectors may be of this type: a float, or int8 or uint8, as quantised embeddings are."""
    return is_float(dtype) or (dtype.kind in "iu" and dtype.itemsize == 1)


def is_bfloat16(dtype: np.dtype) -> bool:
    """Whether NumPy would have stored bfloat16 so: it has no name for it, and writes two-byte voids."""
    return dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None and dtype.subdtype is None


def wrong_dtype(dtype: np.dtype, *, floats_only: bool = False) -> str:
    """What is wrong with a type that is none of the accepted ones, and the way out."""
    bytes_too = "" if floats_only else ", or int8 or uint8"
    expected = f"expected float16, bfloat16, float32 or float64{bytes_too}; got {dtype}"
    if dtype.kind in "iub":
        return f'{expected}. Convert with vectors.astype("float32")'
    return f"{expected}. Sparse matrices become arrays by .toarray()" if dtype.kind == "O" else expected


def to_float32(values: np.ndarray, origin: np.ndarray | None = None) -> np.ndarray:
    """Any of the accepted types, without the origin, as float32 in C order; what float32 cannot hold is infinite."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(values if origin is None else values - origin, dtype=np.float32)


def _floats(values: np.ndarray) -> np.ndarray:
    """bfloat16, which arrives as two-byte voids, as float32; other types as they are."""
    if values.dtype.kind == "V":
        return (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values


@contextmanager
def _told_as_users_error(
    path: Path | str, *errors: type[Exception], what: str = "cannot be read; damaged or changed"
) -> Iterator[None]:
    try:
        yield
    except UserError:  # a ValueError too
        raise
    except errors as error:
        raise UserError(f"{path}: {what}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    text = re.sub(r" at 0x[0-9a-f]+", "", str(error))  # NumPy shows nodes of the header it could not parse
    return (text.strip().splitlines() or [type(error).__name__])[0][:300]


def _holds_floats(kind: pa.DataType) -> bool:
    return _is_list(kind) and bool(pa.types.is_floating(kind.value_type))


def _holds_bytes(kind: pa.DataType) -> bool:
    return _is_list(kind) and bool(pa.types.is_int8(kind.value_type) or pa.types.is_uint8(kind.value_type))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"
