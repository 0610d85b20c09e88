"""Folders of images: one folder per class, and above them `train/` beside `val/` or `test/`.

Walks names only; opens a file to look where its ending does not tell that it is an image.
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
from PIL import Image

from clray.config.sections import DataConfig
from clray.data.images.decode import PixelRules
from clray.data.images.encoded import EncodedImages
from clray.data.readers.csv_tables import path_texts, read_metadata_csv
from clray.data.readers.places import SplitName, is_hidden, is_inside, part_of, require_columns
from clray.data.readers.split import Split, no_labels
from clray.errors import UserError

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif",
     ".tiff", ".webp")
)  # fmt: skip
"""Endings, in any case, whose files are taken for images; the first look at their content is when they are decoded."""
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
"""What a file with another ending may hold to be an image."""


def read_folder(root: Path, config: DataConfig, part: SplitName) -> Split:
    """The images below a folder, with the name of their topmost folder as label; without folders they have none.

    Args:
        part: where the folder holds `train/` and `val/` or `test/`, the one that is taken.

    Raises:
        UserError: no folder of images, a link that leaves the root, or a broken one (where these are not skipped).
    """
    if not root.is_dir():
        raise UserError(f"{root}: expected a folder of images; it is none")
    top, left_out = _top_folder(root, part)
    found = _walk(root, top)
    if found.outside:
        raise UserError(f"{root}: {len(found.outside)} links leave the folder; the first: {found.outside[0]}")
    if found.broken and config.on_bad_image == "error":
        raise UserError(f"{root}: {len(found.broken)} images are broken links; the first: {found.broken[0]}. Remove "
                        "it, or leave such images out with data.on_bad_image=skip")  # fmt: skip
    prefix = len(top.relative_to(root).parts)
    in_class = [name for name in found.images if len(Path(name).parts) > prefix + 1]
    if not found.images:
        raise UserError(f"{top}: expected images; found {found.describe() or 'nothing'}")
    names = sorted(in_class, key=lambda name: _order(name, prefix)) or sorted(found.images)
    labels = (
        pd.Series([Path(name).parts[prefix] for name in names], dtype=object) if in_class else no_labels(len(names))
    )
    columns = {} if config.attributes_path is None else _attributes_of(names, config)
    notes = [*left_out, *found.notes(root)]
    if len(names) < len(found.images):
        beside = next(name for name in found.images if len(Path(name).parts) == prefix + 1)
        notes.append(f"{root}: left out {len(found.images) - len(names)} images in no class folder, such as {beside}")
    empty = sorted({name for name in _folders(top) if name not in set(labels)})
    if empty:
        notes.append(f"{top}: {len(empty)} class folders hold no image; the first: {empty[0]}")
    skipped = tuple(f"{root / name}" for name in found.broken)
    return Split(as_files(root, names, config), labels, columns, tuple(notes), skipped)


def has_test_folder(root: Path) -> bool:
    """Whether the folder holds a part for training and one for testing in place of classes."""
    return root.is_dir() and len(_parts(root)) > 1


def as_files(root: Path, names: list[str], config: DataConfig) -> EncodedImages:
    """Images in files below the root; raises UserError where a symbolic link leads out of it."""
    files = [(root / name).resolve() for name in names]
    outside = [name for name, file in zip(names, files, strict=True) if not is_inside(file, root)]
    if outside:
        raise UserError(f"{root}: {len(outside)} links leave the folder; the first: {outside[0]}")
    return EncodedImages.of_files(files, PixelRules.of(config))


def _order(name: str, prefix: int) -> tuple[str, str, str]:
    """As torchvision's ImageFolder: classes, in them folders by their paths, in them files by name."""
    folder, _, file = name.rpartition("/")
    return Path(name).parts[prefix], folder, file


def _folders(top: Path) -> list[str]:
    try:
        return sorted(each.name for each in top.iterdir() if each.is_dir() and not is_hidden(each.name))
    except OSError as error:
        raise UserError(f"{top}: cannot be read: {error}") from error


def _parts(root: Path) -> dict[str, str]:
    """The folders that hold a part of the data set, by the part; empty where the folders are classes.

    `train/` beside `val/` or `test/` are parts, and so is a `train/` that stands alone; beside others it is a class.
    """
    names = _folders(root)
    parts = {part: name for name in names if (part := part_of(name, alone=True)) is not None}
    is_divided = "train" in parts and (len(parts) > 1 or len(names) == 1)
    return parts if is_divided else {}


def _top_folder(root: Path, part: SplitName) -> tuple[Path, list[str]]:
    """The folder that holds the classes of a part, and notes on folders that belong to none."""
    parts = _parts(root)
    if not parts:
        return root, []
    wanted = "validation" if part == "test" and "test" not in parts else part
    used = {parts["train"], parts.get("test", parts.get("validation"))}
    others = [name for name in _folders(root) if name not in used]
    notes = [f"{root}: left out the folders beside {parts['train']}/: {', '.join(others)}"] if others else []
    return root / parts.get(wanted, parts["train"]), notes


@dataclass
class _Found:
    """What a walk met, by names below the root."""

    images: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    def describe(self) -> str:
        """The files that are no images, by their endings."""
        counts = Counter(Path(name).suffix.lower() or "without ending" for name in self.others)
        return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(5))

    def notes(self, root: Path) -> list[str]:
        return [
            f"{root}: left out {len(names)} {what}; the first: {names[0]}"
            for names, what in (
                (self.others, f"files that are no images ({self.describe()})"),
                (self.hidden, "hidden files and folders, or such as systems leave"),
                (self.repeated, "links to folders whose images are read where they lie"),
            )
            if names
        ]


def _walk(root: Path, top: Path) -> _Found:
    """Everything below `top`; links to folders are followed once, and only where they lead to what is not walked."""
    found, real_top = _Found(), top.resolve()
    visited, stack = {real_top}, [top]
    while stack:
        folder = stack.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            raise UserError(f"{folder}: cannot be read: {error}") from error
        for entry in entries:
            path = Path(entry.path)
            name = path.relative_to(root).as_posix()
            if is_hidden(entry.name):
                found.hidden.append(name)
            elif entry.is_symlink():
                _follow(path, name, root, real_top, visited, stack, found)
            elif entry.is_dir():
                stack.append(path)
            else:
                (found.images if _is_image(path) else found.others).append(name)
    for names in (found.images, found.hidden, found.others, found.outside, found.broken, found.repeated):
        names.sort()
    return found


def _follow(
    path: Path, name: str, root: Path, real_top: Path, visited: set[Path], stack: list[Path], found: _Found
) -> None:
    target = Path(os.path.realpath(path))
    if not target.exists():
        found.broken.append(f"{name} is a broken link (to {path.readlink()})")
    elif not is_inside(target, root):
        found.outside.append(name)
    elif not target.is_dir():
        (found.images if _is_image(path) else found.others).append(name)
    elif target in visited or _is_walked(target, real_top):
        found.repeated.append(name)
    else:
        visited.add(target)
        stack.append(path)


def _is_walked(folder: Path, real_top: Path) -> bool:
    """Whether the walk comes by without the link."""
    return folder.is_relative_to(real_top) and not any(map(is_hidden, folder.relative_to(real_top).parts))


def _is_image(path: Path) -> bool:
    if path.suffix.lower() in SUFFIXES:
        return path.is_file()
    try:
        if not path.is_file():
            return False
        with Image.open(path, formats=FORMATS):
            return True
    except Exception:  # PIL's decoders raise whatever a file of another kind leads them to
        return False


def _attributes_of(names: list[str], config: DataConfig) -> dict[str, pd.Series]:
    """The columns of `data.attributes_path` for each image, missing where it has no row there."""
    assert config.attributes_path is not None, "asked for where there is one"
    path = Path(config.attributes_path)
    table = read_metadata_csv(path)
    require_columns(path, list(table.columns), {config.path_column})
    table = table.assign(**{config.path_column: path_texts(table[config.path_column])})
    table = table.drop_duplicates(config.path_column).set_index(config.path_column)
    if not table.index.isin(names).any():
        raise UserError(f"{path}: none of its paths is an image below {config.train_path}; the first: {table.index[0]}")
    rows = table.reindex(names)
    return {str(name): rows[name].reset_index(drop=True) for name in rows.columns}
