"""Files of one JSON object a line that grow during a run, and outlive kills and full disks."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clray.errors import UserError


def append_line(path: Path, tree: dict[str, Any]) -> int:
    """Add an object as a whole line, or nothing; a half line that a kill left at the end is cut off first.

    Returns where the line begins, in bytes.

    Raises:
        UserError: the file cannot be written, as on a full disk.
    """
    line = json.dumps(tree).encode() + b"\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("r+b" if path.exists() else "w+b", buffering=0) as file:
            before = _end_of_last_line(file)
            try:
                file.truncate(before)
                file.seek(before)
                written = 0
                while written < len(line):
                    written += file.write(line[written:])
            except OSError:
                os.ftruncate(file.fileno(), before)
                raise
            return before
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); make room, or correct the permissions of its "
            "folder, and resume"
        ) from error


def read_lines(path: Path) -> list[dict[str, Any] | None]:
    """The objects of a file, in order, None for a line that is damaged; half a line at the end is left out.

    Raises:
        UserError: the file cannot be read.
    """
    return [tree for _, tree in scan_lines(path)]


def scan_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """As `read_lines`, one at a time, each with the byte at which it begins."""
    start = 0
    try:
        with path.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield start, parse_line(line)
                start += len(line)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error


def write_lines(path: Path, trees: list[dict[str, Any]]) -> None:
    """Write a file anew; a reader finds the old one or the new one, whole.

    Raises:
        UserError: the file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_bytes(b"".join(json.dumps(tree).encode() + b"\n" for tree in trees))
        partial.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); make room, and resume") from error


def parse_line(line: bytes) -> dict[str, Any] | None:
    """The object of one line; None where it is damaged."""
    try:
        tree = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return tree if isinstance(tree, dict) else None


def _end_of_last_line(file: Any) -> int:
    """Where the last whole line ends, in bytes; read from the end, as the file may be long."""
    end = int(file.seek(0, os.SEEK_END))
    size = 4096
    while True:
        start = max(0, end - size)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + int(found) + 1
        if start == 0:
            return 0
        size *= 16
