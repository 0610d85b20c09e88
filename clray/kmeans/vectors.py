"""Where vectors come from: an array in memory or a slice of a `.npy` file that is mapped, not read.

Validates before anything is started; does not cluster.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clray.config import UserError

BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class NpySlice:
    """Rows start..stop of a `.npy` file; small enough to send to the process that maps it."""

    path: str
    start: int
    stop: int

    def load(self) -> np.ndarray:
        """The rows as a read-only memory map, [stop - start, dim]."""
        return np.load(self.path, mmap_mode="r", allow_pickle=False)[self.start : self.stop]


VectorSlice = np.ndarray | NpySlice


def as_array(vectors: VectorSlice) -> np.ndarray:
    """The slice's vectors, [n, dim]."""
    return vectors.load() if isinstance(vectors, NpySlice) else vectors


def split_rows(num_rows: int, num_parts: int) -> list[tuple[int, int]]:
    """Contiguous (start, stop) ranges that cover the rows, sizes differing by at most one, none empty."""
    bounds = np.linspace(0, num_rows, min(num_parts, num_rows) + 1).astype(int)
    return [(int(start), int(stop)) for start, stop in itertools.pairwise(bounds)]


def check_num_clusters(num_clusters: int, num_vectors: int, name: str = "num_clusters") -> None:
    """Raise UserError unless 1 <= num_clusters <= num_vectors."""
    if not 1 <= num_clusters <= num_vectors:
        raise UserError(f"{name} must be between 1 and {num_vectors} (the vectors); got {num_clusters}")


def open_npy(path: Path) -> np.ndarray:
    """Map a `.npy` file of vectors, float16, float32 or float64 [N, dim].

    Raises:
        UserError: a missing, truncated or empty file, another shape or type, or a non-finite value (with its row).
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file (current folder: {Path.cwd()})")
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: not a complete .npy file of numbers: {error}") from error
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise UserError(f"{path}: expected vectors of shape [N, dim], neither of them 0; got {list(vectors.shape)}")
    if vectors.dtype.kind != "f":
        raise UserError(f"{path}: expected float16, float32 or float64; got {vectors.dtype}")
    for start in range(0, len(vectors), BLOCK_ROWS):
        finite = np.isfinite(vectors[start : start + BLOCK_ROWS]).all(axis=1)
        if not finite.all():
            raise UserError(f"{path}: row {start + int(np.argmin(finite))} holds NaN or infinity; remove such rows")
    return vectors
