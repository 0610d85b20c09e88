"""What a published data set says of its images before any is opened, and where it is obtained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clray.errors import UserError

MAX_NAMED = 5
OWN_COLUMNS = ("path", "label", "split", "_merge")
"""Of a catalog's table, and of pandas while it is made."""


@dataclass(frozen=True)
class Source:
    """What a complete copy holds, and where one is had.

    Attributes:
        num_images, num_classes, num_attributes: as published; None where that depends on the user's own list.
        obtained: where, and what to unpack.
    """

    title: str
    obtained: str
    num_images: int | None
    num_classes: int
    num_attributes: int


@dataclass(frozen=True)
class Catalog:
    """The images of a data set.

    Attributes:
        root: folder that the paths start from.
        table: one row per image with `path`, `label`, `split` (`train` or `test`, or empty where the publishers made no
            split), and a column for each of `attributes`.
        notes: what was left out or put right while reading, each with its count.
    """

    source: Source
    root: Path
    table: pd.DataFrame
    attributes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def files(self) -> list[Path]:
        return [self.root / path for path in self.table["path"]]


def require_file(root: Path, candidates: Sequence[str], source: Source) -> Path:
    """The first of these files or folders below the root.

    Raises:
        UserError: none is there; says where the data set is obtained.
    """
    for name in candidates:
        if (root / name).exists():
            return root / name
    raise UserError(
        f"{source.title}: {root} holds none of {', '.join(candidates)}. It is obtained from {source.obtained}"
    )


def require_rows(table: pd.DataFrame, path: Path, source: Source) -> None:
    """Raise UserError where nothing could be read from the file."""
    if table.empty:
        raise UserError(f"{source.title}: {path} names no image. It is obtained from {source.obtained}")


def require_names(names: Sequence[str], path: Path) -> None:
    """Raise UserError where two attributes have one name, or one has that of another column of a catalog's table."""
    for number, name in enumerate(names):
        if name in OWN_COLUMNS or name in names[:number]:
            raise UserError(f"{path}: expected a name of its own for each attribute; got {name!r} once more")


def safe_paths(paths: Sequence[str], where: Path) -> list[str]:
    """The paths as they are; raises UserError where one is absolute, leaves its root, or holds a zero byte."""
    impossible = [path for path in paths if "\0" in path]
    if impossible:
        raise UserError(f"{where}: {len(impossible)} paths are no file's on any system: {impossible[0]!r}")
    bad = [path for path in paths if Path(path).is_absolute() or ".." in Path(path).parts]
    if bad:
        raise UserError(f"{where}: {len(bad)} paths leave the image root: {', '.join(map(repr, bad[:MAX_NAMED]))}")
    return list(paths)


def read_spaced(path: Path, names: Sequence[str], source: Source) -> pd.DataFrame:
    """A file of lines `number text`, as CUB has them, with integers in all columns but the last one's text.

    Raises:
        UserError: missing, not in UTF-8, or a line of another form, named by its number.
    """
    rows = []
    for number, line in enumerate(read_text(path, source).splitlines(), start=1):
        words = line.split(maxsplit=len(names) - 1)
        if not words:
            continue
        try:
            rows.append((int(words[0]), *words[1:]))
            if len(words) != len(names):
                raise ValueError
        except ValueError:
            raise UserError(f"{path}, line {number}: expected `{' '.join(names)}`; got {line.strip()!r}") from None
    return pd.DataFrame(rows, columns=list(names))


def read_text(path: Path, source: Source) -> str:
    """The file as text; raises UserError where it is not there or not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"{source.title}: no file {path}. It is obtained from {source.obtained}") from None
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: not readable as text in UTF-8: {error}") from error
