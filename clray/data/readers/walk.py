"""The images below a folder: what is one, what is no data, and where links lead.

Reads names only; opens a file to look where its ending does not tell that it is an image.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from clray.data.readers.places import is_hidden, is_inside
from clray.errors import UserError

SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif",
     ".tiff", ".webp")
)  # fmt: skip
"""Endings, in any case, whose files are taken for images; the first look at their content is when they are decoded."""
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF")
"""What a file with another ending may hold to be an image, where Pillow can read it."""
METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
"""Lists that describe the images of their folder, as in Hugging Face's layout."""


@dataclass
class Found:
    """What a walk met, by names below the root.

    Attributes:
        repeated: links to folders that are walked anyway.
    """

    images: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)

    def add_file(self, path: Path, name: str) -> None:
        if is_image(path):
            self.images.append(name)
        else:
            (self.metadata if path.name.lower() in METADATA else self.others).append(name)

    def describe(self) -> str:
        """The files that are no images, by their endings."""
        counts = Counter(Path(name).suffix.lower() or "without ending" for name in self.others)
        return ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common(5))

    def notes(self, root: Path) -> list[str]:
        """What was left out."""
        return [
            f"{root}: left out {len(names)} {what}; the first: {names[0]}"
            for names, what in (
                (self.others, f"files that are no images ({self.describe()})"),
                (self.hidden, "hidden files and folders, or such as systems leave"),
                (self.repeated, "links to folders whose images are read where they lie"),
            )
            if names
        ]

    def sort(self) -> None:
        for names in (
            self.images, self.metadata, self.hidden, self.others, self.outside, self.broken, self.repeated,
        ):  # fmt: skip
            names.sort()


def walk(root: Path, top: Path) -> Found:
    """Everything below `top`; links to folders are followed once, and only where they lead to what is not walked.

    Raises:
        UserError: a folder cannot be read.
    """
    found, real_top = Found(), top.resolve()
    visited, stack = {real_top}, [top]
    while stack:
        for entry in entries_of(stack.pop()):
            path = Path(entry.path)
            name = path.relative_to(root).as_posix()
            if is_hidden(entry.name):
                found.hidden.append(name)
            elif entry.is_symlink():
                _follow(path, name, root, real_top, visited, stack, found)
            elif entry.is_dir():
                stack.append(path)
            else:
                found.add_file(path, name)
    found.sort()
    return found


def entries_of(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder, sorted by name; raises UserError where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read: {error}") from error


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder, but for hidden ones, sorted."""
    return [entry.name for entry in entries_of(folder) if _is_folder(entry) and not is_hidden(entry.name)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def image_folders(folder: Path) -> list[str]:
    """The folders in a folder that hold an image at any depth, told by endings; all where none does."""
    names = folders_in(folder)
    holding = [name for name in names if _holds_image(folder / name)]
    return holding or names


def holds_images(folder: Path) -> bool:
    """Whether an image lies in the folder itself."""
    return any(
        not is_hidden(each.name) and not _is_folder(each) and is_image(Path(each)) for each in entries_of(folder)
    )


def holds_metadata(folder: Path) -> bool:
    """Whether a list that describes images lies in the folder itself."""
    return any(each.name.lower() in METADATA for each in entries_of(folder))


def metadata_above(root: Path, folder: Path) -> list[str]:
    """The lists in the folders from the root down to the one above a folder, by names below the root, nearest first."""
    above = [each for each in folder.parents if each.is_relative_to(root)]
    return [
        Path(entry.path).relative_to(root).as_posix()
        for each in above
        for entry in entries_of(each)
        if entry.name.lower() in METADATA
    ]


def _holds_image(folder: Path) -> bool:
    return any(Path(name).suffix.lower() in SUFFIXES for name in _names_below(folder))


def _names_below(folder: Path) -> Iterator[str]:
    """Of files, without following links but the first."""
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield from (name for name in files if not is_hidden(name))


def _follow(
    path: Path, name: str, root: Path, real_top: Path, visited: set[Path], stack: list[Path], found: Found
) -> None:
    target = Path(os.path.realpath(path))
    if not target.exists():
        found.broken.append(f"{name} is a broken link (to {path.readlink()})")
    elif not is_inside(target, root):
        found.outside.append(name)
    elif not target.is_dir():
        found.add_file(path, name)
    elif target in visited or _is_walked(target, real_top):
        found.repeated.append(name)
    else:
        visited.add(target)
        stack.append(path)


def _is_walked(folder: Path, real_top: Path) -> bool:
    """Whether the walk comes by without the link."""
    return folder.is_relative_to(real_top) and not any(map(is_hidden, folder.relative_to(real_top).parts))


def is_image(path: Path) -> bool:
    """By the file's ending, or else by its content."""
    if path.suffix.lower() in SUFFIXES:
        return path.is_file()
    try:
        if not path.is_file():
            return False
        Image.init()
        with Image.open(path, formats=[each for each in FORMATS if each in Image.OPEN]):
            return True
    except Exception:  # PIL's decoders raise whatever a file of another kind leads them to
        return False
