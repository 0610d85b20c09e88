"""The files of a data set that comes in shards: one file, a folder, or a pattern, divided by what their names tell."""

from collections.abc import Collection
from pathlib import Path

from clray.data.readers.places import (
    SplitName,
    base_of,
    files_in,
    fitting,
    is_folder,
    is_hidden,
    is_pattern,
    part_of,
    require_exists,
    require_file,
)
from clray.data.remote.local import fetch_places
from clray.errors import UserError

Files = dict[str | None, list[Path]]
"""Files by the part of the data set that their names tell: `train`, `test`, `validation`, or None."""
PARQUET = (".parquet",)
"""Endings of files, as all functions here take them; a file that is named itself may have any."""


def find_shards(path: Path, endings: tuple[str, ...]) -> Files:
    """The files of a path, sorted, by the part that their names tell.

    Raises:
        UserError: none is there.
    """
    require_exists(path)
    if is_pattern(path):
        base, found = base_of(path), [file for file in fitting(path) if not file.is_dir()]
    elif is_folder(path):
        base, found = path, [file for file in files_in(path) if file.name.endswith(endings)]
    else:
        require_file(path)
        return {None: [path]}
    parts: Files = {}
    for file in sorted(found):
        name = file.relative_to(base)
        if not any(is_hidden(each) or each.startswith("_") for each in name.parts):
            parts.setdefault(part_of(str(name.with_suffix(""))), []).append(file)
    if not parts:
        raise UserError(f"{path}: holds no {' or '.join(endings)} file")
    return parts


def shards_of(path: Path, part: SplitName | None, endings: tuple[str, ...]) -> list[Path]:
    """The files of a part of the data set; all of them where the part is None, or their names tell none.

    Files from far away are fetched, as far as the cache holds them.

    Raises:
        UserError: as `find_shards`; or the names tell the part of some files only, or of none for this part.
    """
    files = _chosen(path, part, endings)
    fetch_places(files)
    return files


def _chosen(path: Path, part: SplitName | None, endings: tuple[str, ...]) -> list[Path]:
    parts = find_shards(path, endings)
    if part is None or len(parts) == 1:
        return sorted(file for files in parts.values() for file in files)
    if None in parts:
        named = next(files[0] for name, files in parts.items() if name is not None)
        raise UserError(
            f"{path}: {named.name} is named as a part of a data set and {parts[None][0].name} is not; name the files "
            f"to use by a pattern, such as data.train_path='folder/train-*{endings[0]}'"
        )
    wanted = "validation" if part == "test" and "test" not in parts else part
    if wanted not in parts:
        purpose = part if part == "validation" else f"{part}ing"
        raise UserError(f"{path}: holds {' and '.join(map(str, parts))} files, and none for {purpose}")
    return parts[wanted]


def unused_shards(path: Path, parts: Files, used: Collection[str | None]) -> list[str]:
    """A note on the files of a training folder that serve for nothing."""
    others = [f"{len(files)} {name}" for name, files in parts.items() if len(parts) > 1 and name not in used]
    return [f"{path}: left out its {' and '.join(others)} files"] if others else []
