"""Storage beyond this machine for a run's files: S3, GCS, a mounted folder, or whatever fsspec can write to.

It has the layout of the output folder: a run's or sweep's files in a folder of its name, those of trials below it.
"""

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from pyarrow import fs

from clray.config import Config
from clray.errors import UserError
from clray.folder_lock import LOCK_FILE
from clray.redaction import hide_credentials
from clray.training.checkpoint import GROUP_FOLDER

PROBE_FILE = ".clray-probe"
CHECKPOINT, PARTIAL = ".pt", ".partial"
NOT_RESULTS = (CHECKPOINT, PARTIAL, ".outbox.jsonl", ".sent", LOCK_FILE)
"""Endings of files that are no results: checkpoints, which go by themselves, and what only this machine needs."""
Stamps = dict[str, tuple[int, int]]
"""Time of change in nanoseconds and bytes of files that were copied, by their names."""
log = logging.getLogger(__name__)


def storage_of(config: Config, name: str) -> "Storage | None":
    """The run's folder in `train.storage_path`, where that is set."""
    return None if config.train.storage_path is None else Storage(config.train.storage_path, name)


def keep_results(config: Config, folder: Path, name: str, kept: Stamps | None = None) -> None:
    """Copy the results in a run's folder to `train.storage_path`, where that is set.

    Args:
        kept: the files that are there already, which the call brings up to date; they go again once they have changed.
    """
    storage = storage_of(config, name)
    if storage is not None and folder.is_dir():
        storage.upload_results(folder, {} if kept is None else kept)


def fetch_checkpoints(config: Config, folder: Path, name: str) -> None:
    """Fetch a run's files from `train.storage_path`, where that is set and the folder has none of its checkpoints."""
    storage = storage_of(config, name)
    if storage is not None and not any(folder.glob("*.pt")):
        storage.download(folder)


@dataclass(frozen=True)
class Storage:
    """A folder of a run in a storage: `uri` is `train.storage_path`, `name` the run's own."""

    uri: str
    name: str

    @cached_property
    def place(self) -> tuple[Any, str]:
        """File system and path of the run's folder in it.

        Raises:
            UserError: no such kind of storage.
        """
        try:
            system, path = fs.FileSystem.from_uri(self.uri)
        except (ValueError, OSError) as error:
            system, path = _of_fsspec(self.uri, error)
        return system, f"{path.rstrip('/')}/{self.name}"

    def check(self) -> None:
        """Raise UserError where a file cannot be written and read again."""
        system, path = self.place
        probe = f"{path}/{PROBE_FILE}"
        try:
            system.create_dir(path, recursive=True)
            with system.open_output_stream(probe) as file:
                file.write(b"clray")
            with system.open_input_stream(probe) as file:
                file.read()
            system.delete_file(probe)
        except Exception as error:
            raise UserError(f"train.storage_path: {self.uri} cannot be written ({_first_line(error)})") from error

    def is_empty(self) -> bool:
        """Whether nothing is kept of a run of this name."""
        system, path = self.place
        return not system.get_file_info(fs.FileSelector(path, allow_not_found=True))

    @cached_property
    def _folder(self) -> tuple[Any, str]:
        """`place`, once the folder is there."""
        system, path = self.place
        system.create_dir(path, recursive=True)
        return system, path

    def upload(self, file: Path) -> bool:
        """Copy a file of the run there, under its own name; a reader finds the old one or the new one whole.

        Where that fails a warning says so: the file here is good, and the next one may go through.

        Returns: whether it is there.
        """
        try:
            system, path = self._folder
            partial = f"{path}/{file.name}{PARTIAL}"
            with file.open("rb") as source, system.open_output_stream(partial) as target:
                while block := source.read(2**22):
                    target.write(block)
            system.move(partial, f"{path}/{file.name}")
        except OSError as error:
            log.warning("%s was not copied to %s: %s", file, hide_credentials(self.uri), hide_credentials(str(error)))
            return False
        return True

    def remove_group(self) -> None:
        """Remove the checkpoints of a worker group, where there are any; what one worker has written is newer."""
        system, path = self.place
        try:
            if system.get_file_info(f"{path}/{GROUP_FOLDER}").type == fs.FileType.Directory:
                system.delete_dir(f"{path}/{GROUP_FOLDER}")
        except OSError as error:
            uri = hide_credentials(f"{self.uri}/{self.name}/{GROUP_FOLDER}")
            log.warning("%s was not removed: %s", uri, hide_credentials(str(error)))

    def upload_results(self, folder: Path, kept: Stamps) -> None:
        """Copy what a run, a sweep or a trial has left in its folder, but for checkpoints and folders in it."""
        for file in sorted(folder.iterdir()):
            if file.is_file() and not file.name.endswith(NOT_RESULTS):
                stamp = (file.stat().st_mtime_ns, file.stat().st_size)
                if kept.get(file.name) != stamp and self.upload(file):
                    kept[file.name] = stamp

    def fetch(self, name: str, folder: Path) -> bool:
        """Copy one file of the run into a folder that is there; returns whether the storage holds it."""
        system, path = self.place
        if not system.get_file_info(f"{path}/{name}").is_file:
            return False
        with system.open_input_stream(f"{path}/{name}") as source:
            (folder / name).write_bytes(source.read())
        return True

    def download(self, folder: Path, *, checkpoints: bool = True) -> None:
        """Fetch the run's files and those below it, where it has any; with `checkpoints` off its results only."""
        system, path = self.place
        for each in system.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=True)):
            inside = PurePosixPath(each.path).relative_to(path)
            is_checkpoint = each.path.endswith(CHECKPOINT) or GROUP_FOLDER in inside.parts
            if not each.is_file or each.path.endswith(PARTIAL) or (is_checkpoint and not checkpoints):
                continue
            if ".." in inside.parts:
                raise UserError(f"train.storage_path: {self.uri} holds a file that leaves the run's folder: {inside}")
            target = folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            fs.copy_files(each.path, str(target), source_filesystem=system, destination_filesystem=fs.LocalFileSystem())


def _of_fsspec(uri: str, error: Exception) -> tuple[Any, str]:
    import fsspec

    try:
        system, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as reason:
        raise UserError(
            f"train.storage_path: {uri} names no storage ({_first_line(error)}; {_first_line(reason)}); "
            "expected for example s3://bucket/runs or /mnt/runs"
        ) from reason
    return fs.PyFileSystem(fs.FSSpecHandler(system)), path


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
