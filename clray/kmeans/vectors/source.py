"""Where vectors come from, and how they are split into slices that are read block by block.

Validates shapes and headers before anything is started; does not cluster.
"""

import bisect
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from clray.errors import UserError
from clray.kmeans.vectors.files import VectorFile, open_npy, open_parquet

SUFFIXES = (".npy", ".parquet")


@runtime_checkable
class VectorSlice(Protocol):
    """A run of rows; small enough to send to the process that reads it, or an array that lies there already."""

    @property
    def dim(self) -> int: ...

    def __len__(self) -> int:
        """Vectors."""
        ...

    def blocks(self, num_rows: int) -> Iterator[np.ndarray]:
        """The vectors in order, float32 [at most num_rows, dim] each."""
        ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Copies of the vectors of ascending rows, float32 [m, dim]."""
        ...


@dataclass(frozen=True)
class ArraySlice:
    """Vectors in memory, float16, float32 or float64 [n, dim]."""

    array: np.ndarray

    @property
    def dim(self) -> int:
        return self.array.shape[1]

    def __len__(self) -> int:
        return len(self.array)

    def blocks(self, num_rows: int) -> Iterator[np.ndarray]:
        for start in range(0, len(self.array), num_rows):
            yield np.ascontiguousarray(self.array[start : start + num_rows], dtype=np.float32)

    def take(self, rows: np.ndarray) -> np.ndarray:
        return np.array(self.array[rows], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class FileSlice:
    """Rows of one or more files, read anew in every pass.

    Attributes:
        pieces: (file, start, stop) in order.
        dropped: ascending rows, counted over the pieces, that are left out.
    """

    pieces: tuple[tuple[VectorFile, int, int], ...]
    dropped: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for slices of the same vectors."""
        return (self.pieces, self.dropped.tobytes())

    @property
    def dim(self) -> int:
        return self.pieces[0][0].dim

    def __len__(self) -> int:
        return sum(stop - start for _, start, stop in self.pieces) - len(self.dropped)

    def without(self, rows: np.ndarray) -> "FileSlice":
        """The slice without some of its rows, ascending."""
        return FileSlice(self.pieces, rows)

    def blocks(self, num_rows: int) -> Iterator[np.ndarray]:
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
                taken.append(file.take(here))
            first += stop - start
        return np.concatenate(taken)


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
        """Bytes that one pass over the vectors reads (Parquet: before compression)."""
        itemsize = self.array.itemsize if self.array is not None else self.files[0].itemsize
        return len(self) * self.dim * itemsize

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

    def locate(self, row: int) -> str:
        """`file: row` of a row over all files, as a user would look for it."""
        starts = list(itertools.accumulate((file.num_rows for file in self.files), initial=0))
        if self.array is not None:
            return f"{self.source}: row {row}"
        position = bisect.bisect_right(starts, row) - 1
        return f"{self.files[position].path}: row {row - starts[position]}"


def open_vectors(path: Path, column: str | None = None) -> Vectors:
    """Vectors of a `.npy` or Parquet file, or of a folder of either; only headers are read.

    Args:
        path: file or folder; the files of a folder are taken in the order of their names.
        column: the Parquet column; by default the only one that holds lists of floats.

    Raises:
        UserError: a missing, empty, truncated or mixed source, or files whose vectors differ in dimension.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file or folder (current folder: {Path.cwd()})")
    paths = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES) if path.is_dir() else [path]
    if not paths:
        raise UserError(f"{path}: holds no .npy or .parquet files")
    suffixes = {file.suffix for file in paths}
    if len(suffixes) > 1:
        raise UserError(f"{path}: holds .npy and .parquet files; keep one kind in a folder")
    if not suffixes <= set(SUFFIXES):
        raise UserError(f"{path}: expected a .npy or .parquet file, or a folder of them")
    opened = [open_npy(file) if file.suffix == ".npy" else open_parquet(file, column) for file in paths]
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


def as_vectors(array: np.ndarray) -> Vectors:
    """Check an array of vectors.

    Raises:
        UserError: another shape or type.
    """
    check_vectors("vectors", array.shape, array.dtype)
    return Vectors("array in memory", array=array)


def check_vectors(name: str, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Raise UserError unless these are floats of shape [N, dim]."""
    if len(shape) != 2 or 0 in shape:
        raise UserError(f"{name}: expected vectors of shape [N, dim], neither of them 0; got {list(shape)}")
    if dtype.kind != "f":
        raise UserError(f"{name}: expected float16, bfloat16, float32 or float64; got {dtype}")


def split_rows(num_rows: int, num_parts: int) -> list[tuple[int, int]]:
    """Contiguous (start, stop) ranges that cover the rows, sizes differing by at most one, none empty."""
    bounds = np.linspace(0, num_rows, min(num_parts, num_rows) + 1).astype(int)
    return [(int(start), int(stop)) for start, stop in itertools.pairwise(bounds)]


def check_num_clusters(num_clusters: Sequence[int], num_vectors: int, name: str = "num_clusters") -> None:
    """Raise UserError unless each is at least 1 and at most the number of vectors."""
    for each in num_clusters:
        if not 1 <= each <= num_vectors:
            raise UserError(f"{name} must be between 1 and {num_vectors} (the vectors); got {each}")
