"""Where data lie: files that must be there, what is no data, and which part of a data set a name says it is."""

import glob
import itertools
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from clray.data.remote.address import address_at
from clray.data.remote.local import fetch_places, places_below, remote_file
from clray.errors import UserError

SplitName = Literal["train", "test", "validation"]
WORDS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "eval", "evaluation"),
    "validation": ("validation", "valid", "val", "dev"),
}
"""How files and folders call the parts of a data set; as Hugging Face's `datasets` reads them."""
NUMBERS = re.compile(r"\{([0-9]{1,9})\.\.([0-9]{1,9})\}")
MOST_FILES = 100_000
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
    """Whether a path is a pattern such as `train-*.parquet` or `train-{000..009}.tar`, and no file of that name."""
    return _is_open(str(path)) and not Path(path).exists()


def base_of(pattern: Path) -> Path:
    """The folder that a pattern starts from."""
    return Path(*itertools.takewhile(lambda part: not _is_open(part), pattern.parts))


def _is_open(text: str) -> bool:
    return glob.has_magic(text) or NUMBERS.search(text) is not None


def fitting(pattern: Path) -> list[Path]:
    """What fits a pattern, sorted; numbers in braces name files, whether these are there or not."""
    return [file for each in _numbered(pattern) for file in (_globbed(each) if glob.has_magic(str(each)) else [each])]


def _numbered(pattern: Path) -> list[Path]:
    """The pattern with each of the numbers that its braces stand for, as WebDataset writes them."""
    match = NUMBERS.search(str(pattern))
    if match is None:
        return [pattern]
    first, last = match.groups()
    if not 0 <= int(last) - int(first) < MOST_FILES:
        raise UserError(f"{pattern}: {match.group()} must rise, and stand for at most {MOST_FILES} files")
    texts = [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1)]
    start, end = str(pattern)[: match.start()], str(pattern)[match.end() :]
    return [each for text in texts for each in _numbered(Path(start + text + end))]


def _globbed(pattern: Path) -> list[Path]:
    base = base_of(pattern)
    if address_at(base) is not None:
        parts = pattern.relative_to(base).parts
        return [place for place in places_below(base) if _fits(place.relative_to(base).parts, parts)]
    return sorted(base.glob(str(pattern.relative_to(base))))


def _fits(names: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    """Whether a path fits the parts of a pattern, of which `**` stands for any number of folders."""
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_fits(names[start:], parts[1:]) for start in range(len(names) + 1))
    return bool(names) and fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])


def is_folder(path: Path) -> bool:
    """Whether a folder lies there, on this machine or far away."""
    return path.is_dir() if address_at(path) is None else remote_file(path) is None


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, on this machine or far away, in any order."""
    if address_at(folder) is not None:
        return places_below(folder)
    return [file for file in folder.rglob("*") if file.is_file()]


def require_exists(path: Path) -> None:
    """Raise UserError where nothing is there, or no file fits the pattern."""
    if address_at(path) is not None and not is_pattern(path):
        remote_file(path)
        return
    if is_pattern(path):
        if not fitting(path):
            raise UserError(f"{path}: no file fits this pattern (current folder: {Path.cwd()})")
    elif not path.exists():
        raise UserError(f"{path}: no such file (current folder: {Path.cwd()})")


def require_file(path: Path) -> None:
    """Raise UserError for what is no regular file: a folder, or a pipe whose end would never come."""
    require_exists(path)
    if address_at(path) is not None and not is_folder(path):
        fetch_places([path])
        return
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
