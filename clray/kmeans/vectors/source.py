"""Where vectors come from, and how they are split into slices that are read block by block.

Validates shapes and headers before anything is started; does not cluster.
"""

import bisect
import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from clray.data.vector_files import (
    VectorFile,
    holds_vectors,
    is_float,
    open_npy,
    open_parquet,
    to_float32,
    wrong_dtype,
)
from clray.errors import UserError
from clray.kmeans.origin import MAX_SQUARED_NORM

SUFFIXES = (".npy", ".parquet")


@dataclass(frozen=True)
class ArraySlice:
    """A run of rows in memory, a float or 8-bit integer type [n, dim], read relative to `origin`."""

    array: np.ndarray
    origin: np.ndarray | None = None

    @property
    def dim(self) -> int:
        return int(self.array.shape[1])

    @property
    def itemsize(self) -> int:
        """Bytes of a coordinate."""
        return int(self.array.itemsize)

    def __len__(self) -> int:
        return len(self.array)

    def blocks(self, num_rows: int) -> Iterator[np.ndarray]:
        """The vectors in order, float32 [at most num_rows, dim] each."""
        for start in range(0, len(self.array), num_rows):
            yield to_float32(self.array[start : start + num_rows], self.origin)

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Copies of the vectors of ascending rows, float32 [m, dim]."""
        return to_float32(self.array[rows], self.origin)

    def without(self, rows: np.ndarray) -> "ArraySlice":
        """The whole slice without some of its rows, ascending."""
        return replace(self, array=np.delete(self.array, rows, axis=0))

    def about(self, origin: np.ndarray | None) -> "ArraySlice":
        """The same slice, read relative to this point, float32 or float64 [dim]."""
        return replace(self, origin=origin)


@dataclass(frozen=True, eq=False)
class FileSlice:
    """Rows of one or more files, read anew in every pass.

    Attributes:
        pieces: (file, start, stop) in order.
        dropped: ascending rows, counted over the pieces, that are left out.
        origin: the point that the vectors are read relative to.
    """

    pieces: tuple[tuple[VectorFile, int, int], ...]
    dropped: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    origin: np.ndarray | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for slices of the same vectors."""
        return (self.pieces, self.dropped.tobytes(), None if self.origin is None else self.origin.tobytes())

    @property
    def dim(self) -> int:
        return self.pieces[0][0].dim

    def __len__(self) -> int:
        return sum(stop - start for _, start, stop in self.pieces) - len(self.dropped)

    def without(self, rows: np.ndarray) -> "FileSlice":
        return replace(self, dropped=rows)

    def about(self, origin: np.ndarray | None) -> "FileSlice":
        return replace(self, origin=origin)

    @property
    def itemsize(self) -> int:
        """Bytes of a coordinate, of the widest file."""
        return max(file.itemsize for file, _, _ in self.pieces)

    def blocks(self, num_rows: int) -> Iterator[np.ndarray]:
        for block in self.stored_blocks(num_rows):
            yield to_float32(block, self.origin)

    def stored_blocks(self, num_rows: int) -> Iterator[np.ndarray]:
        """The vectors in order, as the files hold them: in their own type, relative to no origin."""
        first = 0
        for file, start, stop in self.pieces:
            for block in file.blocks(start, stop, num_rows):
                low, high = np.searchsorted(self.dropped, [first, first + len(block)])
                yield np.delete(block, self.dropped[low:high] - first, axis=0) if low < high else block
                first += len(block)

    def take(self, rows: np.ndarray) -> np.ndarray:
        # The row that is j-th among those kept lies behind the dropped rows before it.
        rows = rows + np.searchsorted(self.dropped - np.arange(len(self.dropped)), rows, side="right")
        taken, first = [np.empty((0, self.dim), np.float32)], 0
        for file, start, stop in self.pieces:
            here = rows[(rows >= first) & (rows < first + stop - start)] - first + start
            if len(here):
                taken.append(to_float32(file.take(here), self.origin))
            first += stop - start
        return np.concatenate(taken)


VectorSlice = ArraySlice | FileSlice
"""Small enough to send to the process that reads it, or an array that lies there already."""


@dataclass(frozen=True)
class Vectors:
    """All vectors of a clustering: an array, or files that are taken one after the other.

    Attributes:
        source: what the user gave, for messages and for clustering.json.
    """

    source: str
    array: np.ndarray | None = None
    files: tuple[VectorFile, ...] = ()

    def __len__(self) -> int:
        return len(self.array) if self.array is not None else sum(file.num_rows for file in self.files)

    @property
    def dim(self) -> int:
        return self.array.shape[1] if self.array is not None else self.files[0].dim

    @property
    def num_bytes(self) -> int:
        """Bytes of all vectors, in Parquet before compression."""
        return len(self) * self.dim * (self.array.itemsize if self.array is not None else self.files[0].itemsize)

    @property
    def dtype(self) -> np.dtype:
        """float64 where any of the vectors are, else float32, in which all others are held exactly."""
        itemsizes = [file.itemsize for file in self.files] if self.array is None else [self.array.itemsize]
        return np.dtype(np.float64 if max(itemsizes) == 8 else np.float32)

    def split(self, num_slices: int) -> list[VectorSlice]:
        """Contiguous slices of even size, none empty."""
        return [self.slice(start, stop) for start, stop in split_rows(len(self), num_slices)]

    def slice(self, start: int, stop: int) -> VectorSlice:
        """Rows start..stop."""
        if self.array is not None:
            return ArraySlice(self.array[start:stop])
        pieces, first = [], 0
        for file in self.files:
            begin, end = max(start - first, 0), min(stop - first, file.num_rows)
            if begin < end:
                pieces.append((file, begin, end))
            first += file.num_rows
        return FileSlice(tuple(pieces))

    def stamp(self) -> int:
        """Differs where the vectors have changed: of sizes and times of files, of the ends of an array."""
        if self.array is not None:
            return zlib.crc32(self.array[:1].tobytes() + self.array[-1:].tobytes())
        stats = [Path(file.path).stat() for file in self.files]
        return zlib.crc32(repr([(stat.st_size, stat.st_mtime_ns) for stat in stats]).encode())

    def locate(self, row: int) -> str:
        """`file: row` of a row over all files, as a user would look for it."""
        if self.array is not None:
            return f"{self.source}: row {row}"
        file, own_row = self._file_of(row)
        return f"{file.path}: row {own_row}"

    def places(self, rows: np.ndarray) -> tuple[list[str], list[int]]:
        """The file of each row over all files, and the row in it."""
        if self.array is not None:
            return [self.source] * len(rows), rows.tolist()
        starts = np.cumsum([0, *(file.num_rows for file in self.files)])
        files = np.searchsorted(starts, rows, side="right") - 1
        return [self.files[number].path for number in files], (rows - starts[files]).tolist()

    def row(self, row: int) -> np.ndarray:
        """One vector as it is stored, [dim]."""
        if self.array is not None:
            found: np.ndarray = self.array[row]
        else:
            file, own_row = self._file_of(row)
            found = file.take(np.array([own_row]))[0]
        return found

    def _file_of(self, row: int) -> tuple[VectorFile, int]:
        starts = list(itertools.accumulate((file.num_rows for file in self.files), initial=0))
        position = bisect.bisect_right(starts, row) - 1
        return self.files[position], row - starts[position]


def read_vectors(source: Any, column: str | None = None) -> Vectors:
    """Vectors of a path, as `open_vectors`, or in memory, as `as_vectors`."""
    return open_vectors(Path(source), column) if isinstance(source, str | Path) else as_vectors(source)


def open_vectors(path: Path, column: str | None = None) -> Vectors:
    """Vectors of a `.npy` or Parquet file, or of a folder of either; only headers are read.

    Args:
        path: file or folder; the files of a folder are taken in the order of their names.
        column: the Parquet column; by default the only one that holds lists of floats.

    Raises:
        UserError: a missing, empty, truncated or mixed source, or files whose vectors differ in dimension.
    """
    try:
        if not path.exists():
            raise UserError(f"{path}: no such file or folder (current folder: {Path.cwd()})")
        paths = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES) if path.is_dir() else [path]
    except (OSError, ValueError) as error:  # a folder without permission, a name with a null byte or too long
        raise UserError(f"{str(path)[:300]!r}: cannot be read: {error}") from error
    if not paths:
        raise UserError(f"{path}: holds no .npy or .parquet files")
    suffixes = {file.suffix for file in paths}
    if len(suffixes) > 1:
        raise UserError(f"{path}: holds .npy and .parquet files; keep one kind in a folder")
    if not suffixes <= set(SUFFIXES):
        raise UserError(f"{path}: expected a .npy or .parquet file, or a folder of them")
    opened = list(_open_all(paths, column))
    files = tuple(file for file in opened if file.num_rows)
    if not files:
        raise UserError(f"{path}: holds no vectors (0 rows)")
    for file in files:
        if file.dim != files[0].dim:
            raise UserError(
                f"{file.path}: its vectors have {file.dim} dimensions, those of {files[0].path} have {files[0].dim}; "
                "cluster them apart"
            )
    return Vectors(str(path), files=files)


def _open_all(paths: Sequence[Path], column: str | None) -> Iterator[VectorFile]:
    for path in paths:
        if path.suffix == ".npy":
            yield open_npy(path)
        else:
            file = open_parquet(path, column)
            column = file.column  # the files after it hold their vectors in the same column
            yield file


def as_vectors(values: Any) -> Vectors:
    """Check vectors in memory: an array, a tensor, or lists of numbers.

    Raises:
        UserError: another shape or type, or a masked array that leaves values out.
    """
    array = to_array(values, "vectors", floats_only=False)
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(f"vectors: expected vectors of shape [N, dim], neither of them 0; got {list(array.shape)}")
    return Vectors("array in memory", array=array)


def to_array(values: Any, name: str, *, floats_only: bool = True) -> np.ndarray:
    """Numbers as an array, whoever made them; bfloat16 as float32.

    Args:
        floats_only: refuse int8 and uint8.

    Raises:
        UserError: what is no array of floats, or a masked array that leaves values out.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        raise UserError(
            f"{name}: a masked array, of which {int(np.ma.getmaskarray(values).sum())} values are masked. Leave those "
            f"rows out, or fill them: {name}.filled(numpy.nan) with drop_nonfinite=True leaves out their rows"
        )
    try:
        if hasattr(values, "detach"):  # a torch tensor; NumPy has no bfloat16
            values = values.detach().cpu()
            values = (values.float() if "bfloat16" in str(values.dtype) else values).numpy()
        array = np.asarray(values)
    except Exception as error:  # whatever the object's own conversion raises
        raise UserError(f"{name}: a {type(values).__name__} that is no array of numbers: {error}") from error
    if array.dtype == object and array.ndim == 0:
        raise UserError(f"{name}: expected an array of floats or the path of a file; got a {type(values).__name__}")
    if not (is_float(array.dtype) if floats_only else holds_vectors(array.dtype)):
        raise UserError(f"{name}: {wrong_dtype(array.dtype, floats_only=floats_only)}")
    return array


def to_centroids(values: Any, name: str) -> np.ndarray:
    """Centroids as an array of floats [K, dim]; raises UserError where they are none, or could not be searched."""
    array = to_array(values, name)
    if array.ndim != 2 or 0 in array.shape:
        raise UserError(f"{name}: expected centroids of shape [K, dim]; got {list(array.shape)}")
    if not np.isfinite(array).all():
        raise UserError(f"{name}: the centroids hold NaN or infinity")
    if np.abs(array).max() > (MAX_SQUARED_NORM / array.shape[1]) ** 0.5:
        raise UserError(f"{name}: a centroid's squared norm may be above the bound of {MAX_SQUARED_NORM:.0e}")
    return array


def split_rows(num_rows: int, num_parts: int) -> list[tuple[int, int]]:
    """Contiguous (start, stop) ranges that cover the rows, sizes differing by at most one, none empty."""
    bounds = np.linspace(0, num_rows, min(num_parts, num_rows) + 1).astype(int)
    return [(int(start), int(stop)) for start, stop in itertools.pairwise(bounds)]


def check_num_clusters(num_clusters: Sequence[int], num_vectors: int, name: str = "num_clusters") -> None:
    """Raise UserError unless each is at least 1 and at most the number of vectors."""
    for each in num_clusters:
        if not 1 <= each <= num_vectors:
            raise UserError(f"{name} must be between 1 and {num_vectors} (the vectors); got {each}")
