"""Any table, in text or Parquet, by the names of its columns."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from clray.data.readers.columns import from_arrow
from clray.data.readers.parquet_tables import read_plain_columns
from clray.data.readers.places import is_pattern, require_columns, require_exists
from clray.data.readers.text_tables import read_text_table


def read_columns(path: Path, names: Sequence[str]) -> list[pd.Series]:
    """Some columns of a table in text (CSV, TSV, JSON lines), or of a Parquet file or folder, in the order of `names`.

    Raises:
        UserError: a missing file or column (naming those there are), or an unreadable file.
    """
    require_exists(path)
    if is_parquet(path):
        table = read_plain_columns(path, names)
        return [from_arrow(table[name]) for name in names]
    frame = read_text_table(path).frame
    require_columns(path, list(frame.columns), set(names))
    return [frame[name] for name in names]


def is_parquet(path: Path) -> bool:
    """Whether a path means Parquet: by its ending, as a folder, or as a pattern."""
    return path.suffix in (".parquet", ".pq") or path.is_dir() or (is_pattern(path) and ".parquet" in path.name)
