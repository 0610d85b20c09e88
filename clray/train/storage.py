"""Storage beyond this machine for a run's files: S3, GCS, a mounted folder, or whatever fsspec can write to."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pyarrow import fs

from clray.config import Config, UserError

PROBE_FILE = ".clray-probe"


def storage_of(config: Config, name: str) -> "Storage | None":
    """The run's folder in `train.storage_path`, where that is set."""
    return None if config.train.storage_path is None else Storage(config.train.storage_path, name)


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

    def upload(self, file: Path) -> None:
        """Copy a file of the run there, under its own name; a reader finds the old one or the new one whole."""
        system, path = self.place
        partial = f"{path}/{file.name}.partial"
        with file.open("rb") as source, system.open_output_stream(partial) as target:
            while block := source.read(2**22):
                target.write(block)
        system.move(partial, f"{path}/{file.name}")

    def download(self, folder: Path) -> None:
        """Fetch the run's files, where it has any, into a folder."""
        system, path = self.place
        folder.mkdir(parents=True, exist_ok=True)
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        for each in found:
            if each.is_file and not each.base_name.endswith(".partial"):
                fs.copy_files(
                    each.path, str(folder / each.base_name), source_filesystem=system,
                    destination_filesystem=fs.LocalFileSystem(),
                )  # fmt: skip


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
