"""What reaches a terminal of names that others chose: what they are, and nothing that they could do."""

import ast
import io
import logging
from pathlib import Path

import pytest
from rich.live import Live
from rich.table import Table

import clray
from clray.cli import terminal
from clray.console import PlainConsole, as_shown

HOSTILE = {
    "[/b]": "[/b]",
    "[red]x[/red]": "[red]x[/red]",
    "[link=http://x]y": "[link=http://x]y",
    ":bug:": ":bug:",
    "\x1b[31mred": "\\x1b[31mred",
    "\x1b]0;title\x07": "\\x1b]0;title\\x07",
    "\x9b2J": "\\x9b2J",
    "over\rwritten": "over\\rwritten",
    "back\x08": "back\\x08",
    "txt.\u202egnp": "txt.\\u202egnp",
    "zero\u200bwidth": "zero\\u200bwidth",
    "bytes \udcff": "bytes \\udcff",
    "http://user:planted@host": "http://***@host",
    "naïve 画像 ✓": "naïve 画像 ✓",
    "a\\[b]": "a\\[b]",
}


def console(*, terminal: bool) -> tuple[PlainConsole, io.StringIO]:
    written = io.StringIO()
    options = {"color_system": "truecolor"} if terminal else {}
    return PlainConsole(file=written, width=200, force_terminal=terminal, **options), written


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items(), ids=map(ascii, HOSTILE))
def test_a_name_is_printed_as_it_is(text: str, shown: str) -> None:
    plain, written = console(terminal=True)
    plain.print(text, soft_wrap=True)
    assert written.getvalue() == f"{shown}\n"


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items(), ids=map(ascii, HOSTILE))
def test_a_name_in_a_table_is_shown_as_it_is(text: str, shown: str) -> None:
    plain, written = console(terminal=False)
    table = Table(text, box=None)
    table.add_row(text)
    plain.print(table)
    with Live(table, console=plain):
        pass
    assert written.getvalue().count(shown) == 4
    assert "\x1b" not in written.getvalue()


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items(), ids=map(ascii, HOSTILE))
def test_what_the_commands_say_of_a_name_is_shown_as_it_is(
    text: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, written = console(terminal=False)
    monkeypatch.setattr(terminal, "err", plain)
    monkeypatch.setattr(terminal, "out", plain)
    terminal.print_note(text)
    terminal.print_error("error", text)
    terminal.print_line(text, plain)
    terminal.print_values({"name": text})
    table = terminal.compact_table((text, "left"))
    table.add_row(text)
    plain.print(table)
    lines = [line.rstrip() for line in written.getvalue().splitlines()]
    assert lines == [f"note: {shown}", f"error: {shown}", shown, f"name  {shown}", shown, shown]


def test_a_name_of_several_lines_does_not_pass_for_another_message(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, written = console(terminal=False)
    monkeypatch.setattr(terminal, "err", plain)
    terminal.print_note("bad image: a\nerror: all is lost")
    assert written.getvalue().splitlines() == ["note: bad image: a", "note: error: all is lost"]


def test_a_log_holds_no_escape_sequence_and_no_password(tmp_path: Path) -> None:
    try:
        terminal.log_to_file(tmp_path / "made" / "clray.log", "clray.redaction")
        logging.getLogger("clray.redaction").warning("no \x1b[31m at http://user:%s@host", "planted")
    finally:
        logging.captureWarnings(False)
        for name in ("clray.redaction", "py.warnings"):
            for handler in logging.getLogger(name).handlers:
                handler.close()
            logging.getLogger(name).handlers, logging.getLogger(name).propagate = [], True
    text = (tmp_path / "made" / "clray.log").read_text()
    assert "no \\x1b[31m at http://***@host" in text


def test_printable_text_is_left_alone() -> None:
    assert as_shown("a\tb\nc é 画 ✓ [x] :y:") == "a\tb\nc é 画 ✓ [x] :y:"


def test_every_console_is_a_plain_one() -> None:
    """A console of rich itself would read markup in names."""
    root = Path(clray.__file__).parent
    found = []
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            called = node.func if isinstance(node, ast.Call) else None
            name = getattr(called, "id", getattr(called, "attr", ""))
            if name in ("Console", "from_markup", "get_console", "rprint"):
                found.append(f"{path.relative_to(root)}:{node.lineno}")
    assert found == []
