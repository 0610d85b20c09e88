"""Any table, CSV or Parquet, by the names of its columns."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clray.data.readers.columns import from_arrow
from clray.data.readers.csv_tables import read_metadata_csv
from clray.data.readers.parquet_tables import read_plain_columns
from clray.data.readers.places import is_pattern, require_columns, require_exists


def read_columns(path: Path, names: Sequence[str]) -> list[pd.Series]:
    """Some columns of a CSV, or of a Parquet file or folder, in the order of `names`.

    Raises:
        UserError: a missing file or column (naming those there are), or an unreadable file.
    """
    require_exists(path)
    if is_parquet(path):
        table = read_plain_columns(path, names)
        return [from_arrow(table[name]) for name in names]
    frame = read_metadata_csv(path)
    require_columns(path, list(frame.columns), set(names))
    return [frame[name] for name in names]


def is_parquet(path: Path) -> bool:
    """Whether a path means Parquet: by its ending, as a folder, or as a pattern."""
    return path.suffix in (".parquet", ".pq") or path.is_dir() or (is_pattern(path) and ".parquet" in path.name)
