"""What the commands print: consoles, spinners, progress bars, tables of values and JSON."""

import importlib
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from clray.progress import progress_bar

out = Console()
err = Console(stderr=True)


@contextmanager
def status(text: str, *, quiet: bool = False) -> Iterator[None]:
    """A spinner on a terminal, nothing elsewhere."""
    if quiet or not err.is_terminal:
        yield
        return
    with err.status(text):
        yield


@contextmanager
def progress(noun: str, total: int, *, quiet: bool = False) -> Iterator[Callable[[float, str], None]]:
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
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
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


class _Warnings(logging.Handler):
    """clray's own warnings, to the terminal too."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)

    def emit(self, record: logging.LogRecord) -> None:
        err.print("[yellow]warning:[/yellow]", end=" ")
        err.print(record.getMessage(), soft_wrap=True, highlight=False, markup=False)


def print_values(values: Mapping[str, Any], *, as_json: bool = False) -> None:
    """Names and values, one a line."""
    if as_json:
        print_json(values)
        return
    width = max(map(len, values), default=0)
    for name, value in values.items():
        shown = f"{value:.4f}" if isinstance(value, float) else str(value)
        out.print(f"{name:<{width}}  {shown}", highlight=False, markup=False, soft_wrap=True)


def print_json(tree: Any) -> None:
    """To stdout, whatever the width of the terminal."""
    sys.stdout.write(json.dumps(tree, indent=2) + "\n")


def print_note(message: str) -> None:
    """Something to know that stops nothing, on stderr."""
    err.print("[yellow]note:[/yellow]", end=" ")
    err.print(message, soft_wrap=True, highlight=False, markup=False)


def print_error(kind: str, message: str) -> None:
    """`kind: message` on stderr, the kind in red, a line per problem."""
    for line in message.splitlines():
        err.print(f"[red]{kind}:[/red]", end=" ")
        err.print(line, soft_wrap=True, highlight=False, markup=False)


def compact_table(*columns: tuple[str, str]) -> Table:
    """A table without rules; columns are (heading, left or right)."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in columns:
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    return table
