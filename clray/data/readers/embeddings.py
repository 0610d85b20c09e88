"""Embeddings as input: vectors in `.npy` or Parquet, with labels in a `.npy` of their own or in a column."""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from clray.config.sections import DataConfig
from clray.data.images.vectors import VectorImages
from clray.data.readers import hub_columns
from clray.data.readers.parquet_tables import read_known
from clray.data.readers.places import SplitName, require_file
from clray.data.readers.shards import PARQUET, shards_of
from clray.data.readers.split import Split, no_labels
from clray.data.remote.cache import present
from clray.data.vector_files import VectorFile, open_npy, open_parquet, to_float32, vector_columns
from clray.errors import UserError

ENDINGS = (".npy", ".parquet")
BLOCK_ROWS = 65_536


def read_embeddings(path: Path, config: DataConfig, part: SplitName | None = None) -> Split:
    """Vectors of a `.npy` or Parquet file, of a folder of either, or of the files that a pattern fits.

    Labels of `.npy` vectors are in `data.labels_path`, `data.test_labels_path` or `data.validation_labels_path`; of
    Parquet in a column beside the vectors, where other columns are attributes.

    Raises:
        UserError: missing, damaged or mixed files, more than `data.memory_limit_mib`, or labels of another number.
    """
    files = shards_of(path, part, ENDINGS)
    if len(kinds := {file.suffix for file in files}) > 1:
        raise UserError(f"{path}: holds .npy and .parquet files; keep one kind in a folder")
    is_npy = kinds == {".npy"}
    opened = _open_all(files, config.vector_column, is_npy=is_npy)
    vectors = _read_all(path, opened, config)
    firsts = itertools.accumulate((each.num_rows for each in opened), initial=0)
    named = tuple((str(file), first) for file, first in zip(files, firsts, strict=False))
    images = VectorImages(vectors, np.arange(len(vectors)), named)
    if is_npy:
        if config.label_columns is not None:
            raise UserError(
                f"data.label_columns names columns of Parquet, and {path} is .npy; name a file with data.labels_path"
            )
        return Split(images, _labels_beside(config, part, len(vectors)), {})
    labels, attributes, notes = read_known(path, files, config, num_rows=len(vectors))
    return Split(images, no_labels(len(vectors)) if labels is None else labels, attributes, notes)


def holds_vectors_only(path: Path) -> bool:
    """Whether the first Parquet file of a path holds vectors and no images; False where it is damaged."""
    try:
        schema = pq.read_schema(present(shards_of(path, None, PARQUET)[0]))
    except (UserError, pa.ArrowException, OSError):
        return False
    return bool(vector_columns(schema)) and not hub_columns.image_columns([schema])


def _open_all(files: Sequence[Path], column: str | None, *, is_npy: bool) -> list[VectorFile]:
    opened: list[VectorFile] = [open_npy(file) if is_npy else open_parquet(file, column) for file in files]
    dims = {file.dim for file in opened if file.num_rows}
    if len(dims) > 1:
        other = next(file for file in opened if file.num_rows and file.dim != opened[0].dim)
        raise UserError(
            f"{other.path}: its vectors have {other.dim} dimensions, those of {opened[0].path} have {opened[0].dim}"
        )
    return opened


def _read_all(path: Path, files: Sequence[VectorFile], config: DataConfig) -> np.ndarray:
    num_rows, dim = sum(file.num_rows for file in files), max(file.dim for file in files)
    if num_rows == 0:
        raise UserError(f"{path}: holds no vectors (0 rows)")
    if num_rows * dim * 4 > config.memory_limit_mib * 2**20:
        raise UserError(
            f"{path}: {num_rows} vectors of {dim} dimensions take {num_rows * dim * 4 / 2**20:.0f} MiB, more than "
            f"data.memory_limit_mib={config.memory_limit_mib}; raise it, or use fewer files"
        )
    vectors, start = np.empty((num_rows, dim), np.float32), 0
    for file in files:
        for block in file.blocks(0, file.num_rows, BLOCK_ROWS) if file.num_rows else ():
            vectors[start : start + len(block)] = to_float32(block)
            start += len(block)
    return vectors


def _labels_beside(config: DataConfig, part: SplitName | None, num_vectors: int) -> pd.Series:
    """The labels of `.npy` vectors: text, or whole numbers, one a vector."""
    key = "labels_path" if part in (None, "train") else f"{part}_labels_path"
    given = getattr(config, key)
    if given is None:
        return no_labels(num_vectors)
    path, key = Path(given), f"data.{key}"
    require_file(path)
    try:
        labels = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy parses the header as a Python literal, which fails in many ways
        reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise UserError(f"{key}: {path}: not readable as .npy: {reason}") from error
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "iubU":
        shape = getattr(labels, "shape", ())
        raise UserError(
            f"{key}: {path}: expected labels of shape [N], whole numbers or text; got {list(shape)} "
            f"{getattr(labels, 'dtype', type(labels).__name__)}"
        )
    if len(labels) != num_vectors:
        raise UserError(f"{key}: {path}: holds {len(labels)} labels for {num_vectors} vectors")
    return pd.Series(labels.astype(object) if labels.dtype.kind == "U" else labels)
