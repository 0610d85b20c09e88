"""Markdown that renders and CSV that reads back."""

import csv
import io
import re

from clray.report.markdown import as_csv, as_markdown
from clray.report.results import Sweep
from tests.report.sweeps import digits, trial

STRANGE = "a|b <script>alert(1)</script> *x* \x1b[31m\u202e\n# $y$"


def cells(line: str) -> list[str]:
    return re.split(r"(?<!\\)\|", line)[1:-1]


def test_every_row_has_as_many_cells_as_the_header() -> None:
    sweep = Sweep("s", [*digits().trials, trial(STRANGE, 0.5)])
    table = [line for line in as_markdown(sweep).splitlines() if line.startswith("|")]
    assert {len(cells(line)) for line in table} == {len(cells(table[0]))}
    assert "H(Z\\|T) bits" in table[0]
    assert len(table) == 2 + 11


def test_names_from_data_are_text_in_markdown() -> None:
    text = as_markdown(Sweep("s", [trial(STRANGE, 0.5)]))
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\*x\\*" in text


def test_csv_reads_back_unrounded() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(Sweep("s", [trial(STRANGE, 1 / 3)])))))
    assert rows[0]["point"] == STRANGE
    assert float(rows[0]["eval/linear_accuracy"]) == 1 / 3
    assert rows[0]["role"] == "candidate"
