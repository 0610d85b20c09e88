"""Tables in text: CSV with commas, semicolons or tabs, and JSON lines.

Text stays text: what pandas would take for a missing value, a number or an index is a value of its own.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from clray.data.readers.columns import from_json, from_texts, is_index
from clray.data.readers.places import require_file
from clray.errors import UserError

JSON_SUFFIXES = (".jsonl", ".ndjson")
SUFFIXES = (".csv", ".tsv", *JSON_SUFFIXES)
COUNTS_ROW = "-1"
SEPARATORS = (",", "\t", ";")


@dataclass(frozen=True)
class TextTable:
    """Columns by name, each with a value a row; `notes` tell what was left out."""

    frame: pd.DataFrame
    notes: tuple[str, ...] = ()


def read_text_table(path: Path) -> TextTable:
    """A table by its ending: `.jsonl` and `.ndjson` hold an object a line, all others rows of fields under a header.

    In UTF-8, with or without a byte order mark, or in UTF-16 with one; any end of line. A CSV is separated by what its
    header has most of. Columns of row numbers are left out, and so are those of JSON that hold objects.

    In the tables of the Cl-InfoNCE authors the first column has no name and is the row's index; a row whose index is
    -1 carries no sample and is dropped.

    Raises:
        UserError: missing file, ragged rows, a line that is no JSON object, another encoding, or no rows.
    """
    require_file(path)
    text = _text_of(path)
    return _read_json_lines(path, text) if path.suffix.lower() in JSON_SUFFIXES else _read_csv(path, text)


def _text_of(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    is_utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeError as error:
        at = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = data.count(b"\n", 0, at) + 1
        raise UserError(
            f"{path}: not readable as text in UTF-8: line {line} holds the byte 0x{data[at]:02x}. Save the table in "
            "UTF-8"
        ) from error


def _read_csv(path: Path, text: str) -> TextTable:
    header, rows = _rows(path, text)
    repeated = sorted({name for name in header if name and header.count(name) > 1})
    if repeated:
        raise UserError(f"{path}: two columns are called {repeated[0]!r}; give each a name of its own")
    if is_index(header[0]):
        rows = [row for row in rows if row[0] not in (COUNTS_ROW, COUNTS_ROW + ".0")]
    if not rows:
        raise UserError(f"{path}: the table has no rows")
    columns = zip(*rows, strict=True)
    named = {name: from_texts(texts) for name, texts in zip(header, columns, strict=True) if not is_index(name)}
    if not named:
        raise UserError(f"{path}: the table has no columns with a name")
    return TextTable(pd.DataFrame(named))


def _rows(path: Path, text: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows, all of one length; lines with nothing on them are passed over."""
    rows: list[list[str]] = []
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_separator(path, text))
    try:
        for row in reader:
            if row and rows and len(row) != len(rows[0]):
                raise UserError(
                    f"{path}: not readable as CSV: line {reader.line_num} has {len(row)} fields and the header "
                    f"{len(rows[0])}. Put a text that holds a comma in quotes, and end no line with a comma"
                )
            if row:
                rows.append(row)
    except csv.Error as error:
        raise UserError(f"{path}: not readable as CSV in UTF-8: line {reader.line_num}: {error}") from error
    if not rows:
        raise UserError(f"{path}: not readable as CSV: the table has no columns")
    return rows[0], rows[1:]


def _separator(path: Path, text: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(SEPARATORS, key=header.count)  # the first of those that are equal


def _read_json_lines(path: Path, text: str) -> TextTable:
    rows = list(_objects(path, text))
    if not rows:
        raise UserError(f"{path}: the table has no rows")
    columns: dict[str, list[Any]] = {}
    for number, row in enumerate(rows):
        for name, value in row.items():
            columns.setdefault(name, [None] * len(rows))[number] = value
    read = {name: from_json(values) for name, values in columns.items() if not is_index(name)}
    nested = [name for name, values in read.items() if values is None]
    frame = pd.DataFrame({name: values for name, values in read.items() if values is not None})
    if frame.empty:
        raise UserError(f"{path}: the table has no columns of plain values")
    notes = (f"{path}: left out {len(nested)} columns that hold objects; the first: {nested[0]}",) if nested else ()
    return TextTable(frame, notes)


def _objects(path: Path, text: str) -> Iterator[dict[str, Any]]:
    # Only these end a line; JSON texts may hold what `splitlines` takes for an end too.
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: not readable as JSON lines: line {number}: {error}") from error
        if "\\ud" in line.lower():
            _require_characters(path, number, row)
        if not isinstance(row, dict):
            raise UserError(f"{path}: not readable as JSON lines: line {number} holds no object such as {{...}}")
        yield row


def _require_characters(path: Path, number: int, row: Any) -> None:
    """JSON can escape halves of characters, which no text holds."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{path}: not readable as JSON lines: line {number} holds half a character") from error
