"""What the commands print: consoles, spinners, progress bars, tables of values and JSON."""

import importlib
import json
import logging
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.table import Table

from clray.cli import stops
from clray.console import PlainConsole, as_shown
from clray.progress import progress_bar


class _Output(PlainConsole):
    def on_broken_pipe(self) -> None:
        stops.output_closed()


out = _Output()
err = PlainConsole(stderr=True)


@contextmanager
def status(text: str, *, quiet: bool = False) -> Iterator[None]:
    """A spinner on a terminal, nothing elsewhere."""
    if quiet or not err.is_terminal:
        yield
        return
    with err.status(text):
        yield


@contextmanager
def progress(noun: str, total: int | None, *, quiet: bool = False) -> Iterator[Callable[[float, str], None]]:
    """A progress bar on stderr; yields a function of (completed, description)."""
    with progress_bar(err, noun, total, quiet=quiet) as show:
        yield show


def log_to_file(log_file: Path, *packages: str) -> None:
    """Send what some packages log, and Python's warnings, to a file instead of the terminal.

    Imports them first: Ray and MLflow set their loggers up when they are imported, and would undo this.
    """
    for package in packages:
        importlib.import_module(package)
    handler = _LateFile(log_file)
    handler.setFormatter(_Shown("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logging.captureWarnings(True)
    for name in (*packages, "py.warnings"):
        logger = logging.getLogger(name)
        logger.handlers = [handler, _Warnings()] if name == "clray" else [handler]
        logger.propagate = False


class _LateFile(logging.FileHandler):
    """Makes its folder with the first line, so that a refused command leaves nothing behind."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, delay=True)

    def _open(self) -> Any:
        Path(self.baseFilename).parent.mkdir(parents=True, exist_ok=True)
        return super()._open()


class _Shown(logging.Formatter):
    """No passwords and no escape sequences in a log, whoever wrote the line."""

    def format(self, record: logging.LogRecord) -> str:
        return as_shown(super().format(record))


class _Warnings(logging.Handler):
    """clray's own warnings, to the terminal too."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        _print_labelled("warning", record.getMessage(), "yellow")


def print_values(values: Mapping[str, Any], *, as_json: bool = False) -> None:
    """Names and values, one a line."""
    if as_json:
        print_json(values)
        return
    width = max(map(len, values), default=0)
    for name, value in values.items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        print_line(f"{name:<{width}}  {shown}")


def print_json(tree: Any) -> None:
    """To stdout, whatever the width of the terminal."""
    sys.stdout.write(json.dumps(tree, indent=2) + "\n")


def print_line(text: str, console: PlainConsole | None = None) -> None:
    """A line that is not wrapped, so that it can be copied and searched."""
    (console or out).print(text, soft_wrap=True)


def print_wrapped(text: str, label: str) -> None:
    """A label and text beside it, wrapped between words; a terminal wider than 100 columns is not filled."""
    for paragraph in text.split("\n"):
        for line in textwrap.wrap(paragraph, max(20, min(out.width, 100) - len(label)), break_on_hyphens=False) or [""]:
            print_line((label + line).rstrip())
            label = " " * len(label)


def print_note(message: str) -> None:
    """Something to know that stops nothing, on stderr."""
    _print_labelled("note", message, "yellow")


def print_error(kind: str, message: str) -> None:
    """`kind: message` on stderr, a line per problem."""
    _print_labelled(kind, message, "red")


def _print_labelled(label: str, message: str, style: str) -> None:
    for line in message.split("\n"):
        err.print(f"{label}:", style=style, end=" ")
        print_line(line, err)


def compact_table(*columns: tuple[str, str]) -> Table:
    """A table without rules; columns are (heading, left or right)."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in columns:
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    return table
