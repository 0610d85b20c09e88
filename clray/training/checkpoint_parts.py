"""The checkpoint of a worker group: a file of each worker beside one of what all hold alike, and a manifest.

The manifest is written last, and names the files with their sizes and checksums: a folder that lacks it, or a file of
it, is no checkpoint. Any file system will do that pyarrow knows.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Int
from pyarrow import fs

from clray.errors import UserError
from clray.training.checkpoint_form import Checkpoint, Part, checked, checked_part

CHECKPOINT_FILE = "checkpoint.pt"
MANIFEST_FILE = "manifest.json"
Rows = Int[np.ndarray, " n"] | Literal["all"] | None
"""Samples whose part of the bank is wanted, by their dataset indices, ascending; None for none."""


def part_file(rank: int) -> str:
    """The name of the file in which a worker keeps what it alone knows."""
    return f"part-{rank:05d}.pt"


class Written(NamedTuple):
    """A file as it was written: its size, and its SHA-256 in hexadecimal."""

    num_bytes: int
    sha256: str


@dataclass(frozen=True)
class Place:
    """A folder in a file system."""

    system: fs.FileSystem
    path: str

    @classmethod
    def here(cls, folder: Path) -> "Place":
        """A folder of this machine."""
        return cls(fs.LocalFileSystem(), str(folder))

    def write(self, name: str, write: Callable[[Any], None]) -> Written:
        """Write a file; a reader finds the whole of it or none, and on this machine it survives a power cut.

        Args:
            write: writes the content into the binary file that it is given.

        Raises:
            OSError, RuntimeError: it cannot be written.
        """
        path = f"{self.path}/{name}"
        self.system.create_dir(self.path, recursive=True)
        if not isinstance(self.system, fs.LocalFileSystem):
            with self.system.open_output_stream(path) as target:
                counted = _Counted(target)
                write(counted)
            return counted.written
        partial = Path(f"{path}.partial")
        try:
            with partial.open("wb") as file:
                counted = _Counted(file)
                write(counted)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return counted.written

    def inside(self, name: str) -> "Place":
        """A folder in this one."""
        return Place(self.system, f"{self.path}/{name}")

    def fetch(self, name: str, file: Path) -> None:
        """Have a file here too; a reader finds the old one or the new one, whole."""
        if isinstance(self.system, fs.LocalFileSystem):
            link_or_copy(Path(self.path) / name, file)
            return
        partial = file.with_name(f"{file.name}.partial")
        fs.copy_files(f"{self.path}/{name}", str(partial), self.system, fs.LocalFileSystem())
        partial.replace(file)

    def read(self, name: str) -> bytes:
        """The content of a file; raises UserError where it cannot be read."""
        try:
            with self.system.open_input_stream(f"{self.path}/{name}") as source:
                content: bytes = source.read()
                return content
        except OSError as error:
            raise UserError(f"{self.path}/{name} cannot be read ({error})") from error

    def sizes(self) -> dict[str, int]:
        """The files of the folder with their bytes; none where there is no folder."""
        found = self.system.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return {each.base_name: each.size for each in found if each.is_file}

    def below(self) -> list["Place"]:
        """The folders in it, by name."""
        found = self.system.get_file_info(fs.FileSelector(self.path, allow_not_found=True))
        return [Place(self.system, path) for path in sorted(each.path for each in found if not each.is_file)]


class _Counted:
    """A binary file that knows what was written to it."""

    def __init__(self, target: Any) -> None:
        self._target, self._digest, self._num_bytes = target, hashlib.sha256(), 0

    def write(self, block: Any) -> int:
        self._digest.update(block)
        self._num_bytes += len(block)
        self._target.write(block)
        return len(block)

    def flush(self) -> None:
        self._target.flush()

    @property
    def written(self) -> Written:
        return Written(self._num_bytes, self._digest.hexdigest())


def committed(folder: Place) -> list[Place]:
    """The checkpoints of a worker group in its folder, newest first; Ray Train names them by time.

    One that was still being written when the group ended is left out.
    """
    return [each for each in reversed(folder.below()) if _is_committed(each.sizes())]


def _is_committed(sizes: dict[str, int]) -> bool:
    """Older ones are a single file."""
    return MANIFEST_FILE in sizes or (CHECKPOINT_FILE in sizes and not any(name.startswith("part-") for name in sizes))


def remove_unfinished(places: Iterable[Place]) -> None:
    """Remove of these what a group was writing when it ended; called while none writes."""
    for each in places:
        sizes = each.sizes()
        if sizes and not _is_committed(sizes):
            each.system.delete_dir(each.path)


def write_manifest(place: Place, files: dict[str, Written]) -> None:
    """Commit what the workers have written.

    Raises:
        UserError: a file is not there as it was written, as where the workers do not see the same folder.
        OSError: it cannot be written.
    """
    _require_sizes(place, files)
    tree = {name: each._asdict() for name, each in sorted(files.items())}
    place.write(MANIFEST_FILE, lambda file: file.write(json.dumps({"files": tree}, indent=1).encode()))


def read_parts(place: Place, rows: Rows, rank: int = 0) -> Checkpoint:
    """A worker group's checkpoint, with what the workers alone knew of some samples.

    Args:
        rows: where they are those that the worker of this rank had, its part is read, else that of each in turn; None
            reads no part, and leaves `num_parts` in the checkpoint.

    Raises:
        UserError: a file is missing, cut or damaged, or the checkpoint was never finished.
    """
    files = _manifest(place)
    if files is None:
        checkpoint = checked(_tree(place, CHECKPOINT_FILE, place.read(CHECKPOINT_FILE)), f"{place.path}")
        if "num_parts" in checkpoint:
            raise UserError(f"{place.path}: not a complete checkpoint: {MANIFEST_FILE} is missing")
        return checkpoint
    _require_sizes(place, files)
    checkpoint = checked(_verified(place, CHECKPOINT_FILE, files), f"{place.path}/{CHECKPOINT_FILE}")
    if rows is None or "num_parts" not in checkpoint:
        return checkpoint
    if isinstance(rows, str):
        rows = np.arange(checkpoint["cluster_ids"].shape[1])
    num_parts = checkpoint["num_parts"]
    own = _part(place, min(rank, num_parts - 1), files)
    parts: Iterable[Part] = [own]
    if not np.array_equal(own["rows"].numpy(), rows):
        parts = (_part(place, number, files) for number in range(num_parts))
    meter, bank = _merged(parts, rows, place.path)
    del checkpoint["num_parts"]
    checkpoint["meter"], checkpoint["bank"] = meter, bank
    return checkpoint


def _merged(
    parts: Iterable[Part], rows: Int[np.ndarray, " n"], where: str
) -> tuple[dict[str, Any], dict[str, torch.Tensor] | None]:
    """The mean of what was measured, and these rows of the banks; one part is in memory at a time."""
    meters, bank, is_there = [], None, np.zeros(len(rows), np.bool_)
    for part in parts:
        meters.append(part["meter"])
        held, own = part["rows"].numpy(), part["bank"]
        places = np.minimum(np.searchsorted(rows, held), len(rows) - 1)
        found = rows[places] == held
        is_there[places[found]] = True
        if own is None:
            continue
        if bank is None:
            bank = {name: value.new_zeros(len(rows), *value.shape[1:]) for name, value in own.items()}
        for name, value in own.items():
            bank[name][torch.from_numpy(places[found])] = value[torch.from_numpy(found)]
    if not is_there.all():
        raise UserError(
            f"{where}: holds nothing of {int((~is_there).sum())} of {len(rows)} samples; it is of other data"
        )
    means = {name: torch.stack([each[name] for each in meters]).mean(dim=0) for name in ("losses", "positives")}
    return {**meters[0], **means}, bank


def _part(place: Place, rank: int, files: dict[str, Written]) -> Part:
    return checked_part(_verified(place, part_file(rank), files), f"{place.path}/{part_file(rank)}")


def _manifest(place: Place) -> dict[str, Written] | None:
    """What the manifest names; None where there is none."""
    if MANIFEST_FILE not in place.sizes():
        return None
    try:
        tree = json.loads(place.read(MANIFEST_FILE))["files"]
        files = {str(name): Written(int(each["num_bytes"]), str(each["sha256"])) for name, each in tree.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{place.path}/{MANIFEST_FILE}: a damaged manifest ({error})") from error
    return files


def _require_sizes(place: Place, files: dict[str, Written]) -> None:
    sizes = place.sizes()
    for name, written in files.items():
        if sizes.get(name) != written.num_bytes:
            found = f"{sizes[name]} of {written.num_bytes} bytes" if name in sizes else "missing"
            raise UserError(f"{place.path}: not a complete checkpoint: {name} is {found}")


def _verified(place: Place, name: str, files: dict[str, Written]) -> Any:
    if name not in files:
        raise UserError(f"{place.path}: not a complete checkpoint: {MANIFEST_FILE} does not name {name}")
    content = place.read(name)
    if hashlib.sha256(content).hexdigest() != files[name].sha256:
        raise UserError(f"{place.path}/{name}: a damaged checkpoint: its checksum is not that of the manifest")
    return _tree(place, name, content)


def _tree(place: Place, name: str, content: bytes) -> Any:
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the reader raise nearly anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{place.path}/{name}: not a complete checkpoint: {reason}") from error


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name, which replaces what is there; a copy where the file system has no links."""
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)
