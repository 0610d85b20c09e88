"""Attribute columns of any kind as codes: single values, several values, missing values and continuous ones."""

import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from clray.config.sections import DataConfig
from clray.data.readers.columns import encode_labels, encode_names, is_list

MAX_DISTINCT = 20
"""A column of fractions with more different values than this is continuous."""
MAX_VALUES = 1000
"""Of a column that holds several values a row, the most frequent so many become attributes."""
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|nan|[+-]?inf")
ABSENT, PRESENT = "no", "yes"


def encode_attributes(
    columns: dict[str, pd.Series], config: DataConfig
) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    """Each attribute's codes, int32 [N], and what they stand for.

    - A column with several values in a row (a list, or text that `data.list_separator` splits) becomes one attribute
      `column=value` for each of its values: present or absent.
    - A column of fractions with more than 20 different values is cut into `data.num_bins` bins of equal frequency; a
      value that fills several bins leaves fewer.
    - Missing values are a value of their own.
    """
    attributes: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {}
    for name, values in columns.items():
        lists = _as_lists(values, config.list_separator)
        if lists is not None:
            attributes |= _encode_lists(name, lists)
        elif (fractions := _continuous(values)) is not None:
            attributes[name] = _encode_continuous(fractions, config.num_bins)
        else:
            attributes[name] = encode_names(values)
    return attributes


def continuous_values(columns: dict[str, pd.Series], config: DataConfig) -> dict[str, np.ndarray]:
    """The numbers of the continuous columns, which their codes no longer tell: float64 [N], NaN for a missing one."""
    numbers = {
        name: _continuous(values)
        for name, values in columns.items()
        if _as_lists(values, config.list_separator) is None
    }
    return {name: values for name, values in numbers.items() if values is not None}


def encode_target(
    name: str, column: str, values: pd.Series, config: DataConfig
) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """An attribute of a column as labels, int32 [N] and -1 where it is missing; None where the column has none such.

    Single values are read as labels are; bins and `column=value` as `encode_attributes` has them.
    """
    if name == column and _as_lists(values, config.list_separator) is None and _continuous(values) is None:
        return encode_labels(values)
    codes, names = encode_attributes({column: values}, config).get(name, (None, ()))
    if codes is None:
        return None
    # A missing value comes last.
    known = tuple(each for each in names if each != "nan")
    return np.where(codes < len(known), codes, -1).astype(np.int32), known


def _as_lists(values: pd.Series, separator: str | None) -> list[list[str] | None] | None:
    """The rows as lists of texts, None for a missing one; None where the column has one value a row."""
    if values.dtype != object and not pd.api.types.is_string_dtype(values.dtype):
        return None
    rows = values.tolist()
    has_lists = any(is_list(row) for row in rows)
    is_split = separator is not None and any(isinstance(row, str) and separator in row for row in rows)
    if not has_lists and not is_split:
        return None
    # Beside lists a text is one value.
    return [_parts(row, None if has_lists else separator) for row in rows]


def _parts(row: Any, separator: str | None) -> list[str] | None:
    if is_list(row):
        return [str(part) for part in row]
    if row is None or row is pd.NA or row != row:
        return None
    parts: Iterable[str] = [str(row)] if separator is None else str(row).split(separator)
    return [part.strip() for part in parts if part.strip()]


def _encode_lists(name: str, rows: list[list[str] | None]) -> dict[str, tuple[np.ndarray, tuple[str, ...]]]:
    number = np.array([i for i, row in enumerate(rows) for _ in row or ()], np.int64)
    codes, values = pd.factorize(np.array([part for row in rows for part in row or ()], dtype=object), sort=True)
    counts = np.bincount(codes, minlength=len(values))
    chosen = np.sort(np.argsort(-counts, kind="stable")[:MAX_VALUES])
    is_missing = np.array([row is None for row in rows])
    attributes: dict[str, tuple[np.ndarray, tuple[str, ...]]] = {}
    for code in chosen:
        column = np.zeros(len(rows), np.int32)
        column[number[codes == code]] = 1
        column[is_missing] = 2
        names = (ABSENT, PRESENT, "nan") if is_missing.any() else (ABSENT, PRESENT)
        attributes[f"{name}={values[code]}"] = (column, names)
    return attributes


def _continuous(values: pd.Series) -> np.ndarray | None:
    """The numbers of a continuous column, float64 [N], NaN for a missing one; None for any other column.

    Numbers may stand as text, as in a CSV with `12.50`.
    """
    if pd.api.types.is_float_dtype(values.dtype):
        numbers = values.to_numpy(np.float64, na_value=np.nan)
    elif values.dtype == object or pd.api.types.is_string_dtype(values.dtype):
        if not all(value is None or (isinstance(value, str) and NUMBER.fullmatch(value)) or value != value
                   for value in values):  # fmt: skip
            return None
        numbers = np.array([float(value) if isinstance(value, str) else np.nan for value in values], np.float64)
    else:
        return None
    known = numbers[np.isfinite(numbers)]
    is_whole = np.array_equal(known, np.trunc(known))
    return None if is_whole or len(np.unique(known)) <= MAX_DISTINCT else numbers


def _encode_continuous(values: np.ndarray, num_bins: int) -> tuple[np.ndarray, tuple[str, ...]]:
    finite = pd.Series(values).where(np.isfinite(values))
    bins = pd.qcut(finite, num_bins, duplicates="drop")
    codes = bins.cat.codes.to_numpy().astype(np.int32)
    names = tuple(str(interval) for interval in bins.cat.categories)
    if (codes < 0).any():
        codes[codes < 0] = len(names)
        names += ("nan",)
    return codes, names
