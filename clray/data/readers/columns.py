"""Columns of tables as pandas series in which no two different values merge, and series as codes."""

import json
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
"""A whole number as Python writes it, small enough for int64: `007`, `+1` and 20-digit ids stay text."""
MINUS_ONE, ONE = frozenset(("-1", "-1.0")), frozenset(("1", "1.0"))
"""How -1 and 1 stand in a column of labels."""
LEAST, MOST, WHOLE = -(2**63), 2**63 - 1, 2**53
"""Of whole numbers: what 64 bits hold, and up to where each has a float of its own."""
INDEX_NAME = re.compile(r"|Unnamed: [0-9]+|__index_level_[0-9]+__")
"""The names under which pandas leaves its row numbers in a file."""


def is_index(name: str) -> bool:
    """Whether a column is a row number that pandas left behind."""
    return INDEX_NAME.fullmatch(name) is not None


def from_texts(texts: Sequence[str]) -> pd.Series:
    """A column of a CSV: numbers only where every text is written as Python writes that number; else the texts.

    So `007`, `1e5` and `NA` are values of their own, and the name of a value is its text. An empty text is missing.
    """
    given = [text for text in texts if text]
    if given and all(INTEGER.fullmatch(text) for text in given):
        if len(given) == len(texts):
            return pd.Series(np.array(texts, np.int64))
        return pd.Series([int(text) if text else None for text in texts], dtype="Int64")
    if given and all(map(_is_fraction, given)):
        return pd.Series([float(text) if text else np.nan for text in texts], dtype=np.float64)
    return pd.Series([text or None for text in texts], dtype=object)


def _is_fraction(text: str) -> bool:
    try:
        value = float(text)
    except ValueError:
        return False
    return repr(value) == text and np.isfinite(value)


def from_json(values: Sequence[Any]) -> pd.Series | None:
    """A column of JSON: numbers, truth values, texts, or lists of these; None where it holds objects.

    Values of several kinds become texts, as JSON writes them, and so do single values beside lists; null and NaN are
    missing.
    """
    given = [value for value in values if value is not None and value == value]
    parts = [part for value in given for part in (value if isinstance(value, list) else (value,))]
    if any(isinstance(part, dict | list) for part in parts):
        return None
    if any(isinstance(value, list) for value in given):
        return pd.Series(
            [None if value is None or value != value else [*map(_json_text, value)] if isinstance(value, list)
             else _json_text(value) for value in values], dtype=object
        )  # fmt: skip
    kinds = {type(value) for value in given}
    is_missing = len(given) < len(values)
    if kinds == {bool}:
        return pd.Series(values, dtype="boolean" if is_missing else "bool")
    if kinds == {int} and all(LEAST <= value <= MOST for value in given):
        known = [None if value is None or value != value else value for value in values]
        return pd.Series(known, dtype="Int64" if is_missing else "int64")
    if kinds == {float} or (kinds == {int, float} and all(abs(value) <= WHOLE for value in given)):
        return pd.Series([np.nan if value is None else value for value in values], dtype=np.float64)
    return pd.Series([None if value is None or value != value else _json_text(value) for value in values], dtype=object)


def _json_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def plain_type(kind: pa.DataType) -> pa.DataType | None:
    """The type in which a Parquet column is read; None for a column that holds neither plain values nor lists of them.

    Dates and times become text (ISO 8601, UTC where they have a zone), which sorts as they do.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        of_values = plain_type(kind.value_type)
        return None if of_values is None else pa.large_list(of_values)
    if pa.types.is_float16(kind):
        return pa.float32()
    if pa.types.is_duration(kind):
        return pa.int64()
    is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    is_time = pa.types.is_date(kind) or pa.types.is_time(kind) or pa.types.is_timestamp(kind)
    if is_text or is_time or pa.types.is_decimal(kind):
        return pa.large_string()
    is_value = pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return kind if is_value or pa.types.is_null(kind) else None


def as_plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in its `plain_type`."""
    kind = column.type
    wanted = plain_type(kind)
    assert wanted is not None, f"{kind} is no plain type"
    if isinstance(kind, pa.BaseExtensionType):
        storage = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
        return as_plain(storage)
    if pa.types.is_dictionary(kind):
        return as_plain(column.cast(kind.value_type))
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit))
    return column if column.type == wanted else column.cast(wanted)


def from_arrow(column: pa.ChunkedArray) -> pd.Series:
    """A column of plain type; whole numbers stay whole beside missing ones, where pandas would take fractions."""
    kind = column.type
    if column.null_count and pa.types.is_boolean(kind):
        return pd.Series(column.to_pylist(), dtype="boolean")
    if column.null_count and pa.types.is_integer(kind):
        return pd.Series(column.to_pylist(), dtype="UInt64" if pa.types.is_unsigned_integer(kind) else "Int64")
    if pa.types.is_large_list(kind) and pa.types.is_integer(kind.value_type):
        return pd.Series(column.to_pylist(), dtype=object)
    values: pd.Series = column.to_pandas()
    return values


def encode_values(values: pd.Series) -> np.ndarray:
    """Values as codes 0..C-1 in sorted order, int32 [N]; missing values share a code of their own."""
    return encode_names(values)[0]


def encode_names(values: pd.Series) -> tuple[np.ndarray, tuple[str, ...]]:
    """Codes as `encode_values` gives them, and the values they stand for (`nan` for a missing one)."""
    codes, distinct = pd.factorize(values, sort=True, use_na_sentinel=False)
    return codes.astype(np.int32), tuple("nan" if pd.isna(value) else str(value) for value in distinct)


def encode_labels(values: pd.Series) -> tuple[np.ndarray, tuple[str, ...]]:
    """Labels as codes, int32 [N], and the values they stand for; a missing one is -1.

    Missing is what is null, NaN, an empty text, or -1, but for labels that are -1 and 1, which are two classes.
    """
    texts = values.map(str, na_action="ignore")
    is_known = (values.notna() & (texts != "")).to_numpy(bool)
    is_minus_one = texts.isin(MINUS_ONE).to_numpy(bool)
    others = set(texts[is_known & ~is_minus_one])
    if not others or not others <= ONE:
        is_known = is_known & ~is_minus_one
    codes = np.full(len(values), -1, np.int32)
    codes[is_known], names = encode_names(values[is_known])
    return codes, names


def notes_on_classes(labels: np.ndarray, num_train: int, names: tuple[str, ...], held_out: str = "test") -> list[str]:
    """Classes that nothing can be learned or said about; `labels` are codes, those of the training images first.

    Args:
        held_out: what the other images are.
    """
    train = labels[:num_train]
    trained = np.bincount(train[train >= 0], minlength=len(names))
    unseen, single = np.flatnonzero(trained == 0), np.flatnonzero(trained == 1)
    return [
        f"{len(found)} of {len(names)} classes {what}; the first: {names[found[0]]}"
        for found, what in ((unseen, f"have {held_out} images only"), (single, "have a single training image"))
        if len(found)
    ]


def joined(*parts: pd.Series) -> pd.Series:
    """One column after the other; where one holds text and another numbers, all as text, so that 1 is `1`."""
    if len({pd.api.types.is_numeric_dtype(part.dtype) for part in parts if part.notna().any()}) > 1:
        parts = tuple(part.map(_as_text, na_action="ignore").astype(object) for part in parts)
    return pd.concat(parts, ignore_index=True)


def is_list(value: Any) -> bool:
    """Whether a value is several."""
    return isinstance(value, list | tuple | set | np.ndarray)


def is_missing(value: Any) -> bool:
    """Whether a value is null, NaN or an empty text."""
    return not is_list(value) and bool(pd.isna(value) or value == "")


def _as_text(value: Any) -> Any:
    return value if is_list(value) else str(value)
