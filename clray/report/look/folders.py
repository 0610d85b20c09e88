"""The images of each cluster as a folder, to look at or to work on with any program; nothing is ever overwritten."""

import os
import re
from pathlib import Path

import numpy as np

from clray.data.images.array import ArrayImages
from clray.errors import UserError
from clray.report.look.opened import Finished

NAMED_IN_ROW = re.compile(r".*, row \d+ \((.*)\)", re.DOTALL)
"""How the images of a table are named, with their files."""
UNSAFE = re.compile(r"[^\w.-]+")
LONGEST = 80


def copy_clusters(run: Finished, folder: Path, *, as_copies: bool = False) -> int:
    """Fill a new folder with one for each cluster, `cluster_0007`; returns how many images there are.

    An image that lies in a file of its own becomes a link to it, or with `as_copies` a copy. Any other is written as
    PNG, as the encoder saw it. Each is named by its row and what is safe of its own name.

    Raises:
        UserError: the folder holds something, or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists already; choose a new folder as `copy_to`")
    if not run.data.train.images.has_pixels:
        raise UserError(f"{run.folder}: trained on vectors, of which no pictures can be written")
    images, count = run.data.train.images, 0
    try:
        for number in np.unique(run.ids):
            into = folder / f"cluster_{number:04d}"
            into.mkdir(parents=True, exist_ok=False)
            for row in np.flatnonzero(run.ids == number):
                name = images.name(int(row))
                file = file_of(name)
                target = into / f"{row:07d}_{safe_name(name if file is None else file.name)}"
                if file is None:
                    _write_new(target.with_name(f"{target.name}.png"), _as_png(run, int(row)))
                elif as_copies:
                    _write_new(target, file.read_bytes())
                else:
                    target.symlink_to(file.absolute())
                count += 1
    except OSError as error:
        raise UserError(f"{folder}: cannot be written: {error}") from error
    return count


def file_of(name: str) -> Path | None:
    """The file of an image by its name, where it has one of its own."""
    in_row = NAMED_IN_ROW.fullmatch(name)
    for text in (name, in_row[1] if in_row else ""):
        try:
            if text and Path(text).is_file():
                return Path(text)
        except (OSError, ValueError):
            continue  # no name of a file
    return None


def safe_name(name: str) -> str:
    """What of a name every file system takes: its last letters, digits, dots and hyphens; never one that is hidden."""
    return UNSAFE.sub("_", name)[-LONGEST:].lstrip("._-") or "image"


def _write_new(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)


def _as_png(run: Finished, row: int) -> bytes:
    images = run.data.train.images
    if images.is_decoded:
        return images.encode(row, None)
    ((pixels, _),) = images.batches([np.array([row])], run.config.data)
    return ArrayImages(pixels.numpy()).encode(0, None)
