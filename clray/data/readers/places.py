"""Where data lie: files that must be there, what is no data, and which part of a data set a name says it is."""

import glob
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from clray.errors import UserError

SplitName = Literal["train", "test"]
WORDS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
"""How files and folders call the parts of a data set; as Hugging Face's `datasets` reads them."""
NO_DATA = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini", "lost+found", "$RECYCLE.BIN", "System Volume Information")
"""What systems leave in folders; names that begin with a dot are no data either."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is no data."""
    return name.startswith(".") or name in NO_DATA


def part_of(name: str, *, alone: bool = False) -> str | None:
    """`train`, `test` or `validation` where a word of the name says so, such as `train-00000-of-00003`.

    Args:
        alone: only where it is the name's only word, as in `train2017`; `train_station` is none then.
    """
    words = {word for word in re.split(r"[-._ 0-9/\\]+", name.lower()) if word}
    if alone and len(words) != 1:
        return None
    return next((part for part, known in WORDS.items() if not words.isdisjoint(known)), None)


def is_pattern(path: str | Path) -> bool:
    """Whether a path is a pattern such as `data/train-*.parquet`, and no file of that name."""
    return glob.has_magic(str(path)) and not Path(path).exists()


def base_of(pattern: Path) -> Path:
    """The folder that a pattern starts from."""
    return Path(*itertools.takewhile(lambda part: not glob.has_magic(part), pattern.parts))


def fitting(pattern: Path) -> list[Path]:
    """What fits a pattern, sorted."""
    base = base_of(pattern)
    return sorted(base.glob(str(pattern.relative_to(base))))


def require_exists(path: Path) -> None:
    """Raise UserError where nothing is there, or no file fits the pattern."""
    if is_pattern(path):
        if not fitting(path):
            raise UserError(f"{path}: no file fits this pattern (current folder: {Path.cwd()})")
    elif not path.exists():
        raise UserError(f"{path}: no such file (current folder: {Path.cwd()})")


def require_file(path: Path) -> None:
    """Raise UserError for what is no regular file: a folder, or a pipe whose end would never come."""
    require_exists(path)
    if not path.is_file():
        raise UserError(f"{path}: expected a file; it is {'a folder' if path.is_dir() else 'no regular file'}")


def require_columns(path: Path, present: Sequence[str], needed: set[str]) -> None:
    """Raise UserError where a column is missing, naming those there are."""
    missing = sorted(needed - set(present))
    if missing:
        raise UserError(f"{path}: no column {', '.join(map(repr, missing))}; the table has: {', '.join(present)}")


def is_inside(file: Path, root: Path) -> bool:
    """Whether a resolved file lies below the root, symbolic links followed."""
    return file.is_relative_to(root.resolve())
