"""What a `metadata.csv` or `metadata.jsonl` in a folder says of its images, as in Hugging Face's imagefolder."""

import os
import posixpath
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from clray.config.sections import DataConfig
from clray.data.readers.columns import joined
from clray.data.readers.lists import label_column_of, path_column_of, path_texts
from clray.data.readers.places import require_columns
from clray.data.readers.text_tables import read_text_table
from clray.errors import UserError


@dataclass(frozen=True)
class Described:
    """Columns with a value for each image, missing where no row names it.

    Attributes:
        labels: None where no metadata have any.
        problems: rows that name no image, where these may be skipped.
    """

    labels: pd.Series | None
    columns: dict[str, pd.Series]
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def read_metadata(root: Path, top: Path, files: list[str], names: list[str], config: DataConfig) -> Described | None:
    """What the metadata files, named below the root, say of the images, named below it too; None without such files.

    Args:
        top: the folder of the images; files above it may name those of other folders, too.

    Raises:
        UserError: an unreadable file; or a row that names no image, where these are not skipped.
    """
    rows = {name: number for number, name in enumerate(names)}
    parts: list[_Part] = []
    notes: list[str] = []
    problems: list[str] = []
    used: set[int] = set()
    for file in files:
        read = read_text_table(root / file)
        header = list(map(str, read.frame.columns))
        column, label = path_column_of(root / file, header, config), label_column_of(header, config)
        require_columns(root / file, header, {column})
        paths = path_texts(read.frame[column])
        numbers = [_row_of(posixpath.dirname(file), path, rows) for path in paths]
        is_above = not (root / file).is_relative_to(top)
        problems += _problems(root / file, paths, numbers, used, beside=(root, top) if is_above else None)
        parts.append(_Part(read.frame.drop(columns=column), numbers, label if label in header else None))
        notes += read.notes
    if not parts:
        return None
    if problems and config.on_bad_image == "error":
        raise UserError(
            f"{problems[0]} ({len(problems)} such rows). Put them right, or pass over them with data.on_bad_image=skip"
        )
    if len(used) < len(names):
        first = next(name for number, name in enumerate(names) if number not in used)
        notes.append(f"{root}: {len(names) - len(used)} images have no row in the metadata, such as {first}")
    labels = _merged([part.values(part.label) for part in parts if part.label is not None], len(names))
    others = dict.fromkeys(str(name) for part in parts for name in part.frame.columns if name != part.label)
    columns = {
        name: _merged([part.values(name) for part in parts if name in part.frame], len(names)) for name in others
    }
    return Described(
        labels, {name: each for name, each in columns.items() if each is not None}, (*notes,), (*problems,)
    )


@dataclass(frozen=True)
class _Part:
    """The rows of one file with the numbers of their images, None where there is none."""

    frame: pd.DataFrame
    numbers: list[int | None]
    label: str | None

    def values(self, name: str) -> pd.Series:
        """A column, by the numbers of the images."""
        kept = [row for row, number in enumerate(self.numbers) if number is not None]
        values = self.frame[name].iloc[kept]
        return values.set_axis([self.numbers[row] for row in kept])


def _merged(parts: list[pd.Series], num_images: int) -> pd.Series | None:
    """The values of several files for all images; the first row of an image counts."""
    if not parts:
        return None
    numbers = pd.Index([number for part in parts for number in part.index])
    whole = joined(*parts).set_axis(numbers)
    whole = whole[~numbers.duplicated()]
    if len(whole) < num_images and whole.dtype.kind in "iub":  # pandas would make fractions of whole numbers
        whole = whole.astype("boolean" if whole.dtype.kind == "b" else "Int64")
    described: pd.Series = whole.reindex(range(num_images))
    return described


def _row_of(folder: str, path: str, rows: dict[str, int]) -> int | None:
    """The number of the image that a path names, seen from the folder of the metadata."""
    return next((number for name in _meant(folder, path) if (number := rows.get(name)) is not None), None)


def _meant(folder: str, path: str) -> list[str]:
    """The names that a path may stand for, seen from a folder."""
    return [posixpath.normpath(posixpath.join(folder, each)) for each in (path, path.replace("\\", "/").strip())]


def _is_beside(file: Path, path: str, root: Path, top: Path) -> bool:
    """Whether a path in a list names a file below the root that is none of the images' folder."""
    places = [root / name for name in _meant(file.parent.relative_to(root).as_posix(), path) if name[:2] != ".."]
    return any(
        place.is_relative_to(root) and not place.is_relative_to(top) and os.path.isfile(place)  # noqa: PTH113
        for place in places
    )


def _problems(
    file: Path, paths: list[str], numbers: list[int | None], used: set[int], beside: tuple[Path, Path] | None
) -> list[str]:
    """Rows that name no image, or one that a row before named; `used` gathers those that are named.

    Args:
        beside: root and folder of the images, where rows may name files of the root that lie beside that folder.
    """
    found = []
    for row, (path, number) in enumerate(zip(paths, numbers, strict=True)):
        if number is None and beside is not None and path and _is_beside(file, path, *beside):
            continue
        if number is None:
            found.append(
                f"{file}: row {row}: no image {path!r} below its folder" if path else f"{file}: row {row}: no path"
            )
        elif number in used:
            found.append(f"{file}: row {row}: the image {path!r} occurs in an earlier row")
        else:
            used.add(number)
    return found
