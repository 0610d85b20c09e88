"""File systems far away: what lies at an address, and its bytes; tried again where the way there fails.

Credentials come from the environment alone, as the system's own tools take them.
"""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pyarrow import fs

from clray.data.remote.address import Address
from clray.data.remote.web import WebSystem
from clray.errors import UserError
from clray.redaction import hide_credentials

ATTEMPTS = 3
WAIT_SECONDS = 0.5
"""Before the second attempt; twice as long before each further one."""
BLOCK_BYTES = 2**22
LISTING_SECONDS = 60
"""So long a listing is taken for what is there."""
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a role",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS, or a service account",
    "hf": "HF_TOKEN",
}
REFUSED = ("ACCESS_DENIED", "ACCESS DENIED", "FORBIDDEN", "UNAUTHORIZED", "403", "401", "INVALID_ACCESS_KEY_ID",
           "SIGNATURE_DOES_NOT_MATCH", "PERMISSION")  # fmt: skip
Result = TypeVar("Result")


@dataclass(frozen=True)
class RemoteFile:
    """A file far away; `stamp` changes with its content where the system tells when it was written."""

    address: Address
    num_bytes: int
    stamp: str = ""


class CutShortError(OSError):
    """Fewer bytes came than were promised."""


def find(address: Address) -> RemoteFile | None:
    """The file at an address; None for a folder.

    Raises:
        UserError: nothing is there, or it cannot be read.
    """
    system, path = _system_of(address)
    info = _tried(address, lambda: system.get_file_info(path))
    if info.type == fs.FileType.NotFound:
        raise UserError(f"{address}: no such file or folder")
    return None if info.type == fs.FileType.Directory else _as_file(address, info)


def files_below(address: Address) -> list[RemoteFile]:
    """All files below a folder, sorted by address; raises UserError as `find`."""
    return list(_listing(address, int(time.monotonic() // LISTING_SECONDS), os.getpid()))


@lru_cache(maxsize=32)
def _listing(address: Address, _minute: int, _process: int) -> tuple[RemoteFile, ...]:
    system, path = _system_of(address)
    selector = fs.FileSelector(path, recursive=True)
    found = _tried(address, lambda: system.get_file_info(selector))
    start = path.strip("/") + "/"
    inside = [(info.path.lstrip("/"), info) for info in found if info.type == fs.FileType.File]
    files = [
        _as_file(Address(address.scheme, f"{address.path}/{name.removeprefix(start)}"), info)
        for name, info in inside
        if name.startswith(start)
    ]
    return tuple(sorted(files, key=lambda file: file.address.path))


def copy(file: RemoteFile, target: Path) -> None:
    """Write a remote file's bytes into a local file that is there.

    Raises:
        UserError: it cannot be read, after several attempts.
        OSError: the local file cannot be written.
    """
    system, path = _system_of(file.address)

    def attempt() -> OSError | None:
        done = 0
        with target.open("r+b") as local, system.open_input_stream(path) as source:
            while block := source.read(BLOCK_BYTES):
                try:
                    local.write(block)
                    local.flush()
                except OSError as error:  # of this machine: no second attempt would mend it
                    return error
                done += len(block)
        if done != file.num_bytes:
            raise CutShortError(f"{done} of {file.num_bytes} bytes came")
        return None

    failure = _tried(file.address, attempt)
    if failure is not None:
        raise failure


def _as_file(address: Address, info: Any) -> RemoteFile:
    return RemoteFile(address, int(info.size or 0), "" if info.mtime_ns is None else str(info.mtime_ns))


def _tried(address: Address, action: Callable[[], Result]) -> Result:
    wait = WAIT_SECONDS
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except UserError:
            raise
        except FileNotFoundError as error:
            raise UserError(f"{address}: no such file or folder") from error
        except Exception as error:  # each system and its library has its own
            reason = hide_credentials(" ".join(str(error).split()) or type(error).__name__)[:300]
            if any(word in reason.upper() for word in REFUSED) or isinstance(error, PermissionError):
                source = CREDENTIALS.get(address.scheme)
                hint = "" if source is None else f"; credentials come from the environment ({source})"
                raise UserError(f"{address}: may not be read ({reason}){hint}") from error
            if attempt == ATTEMPTS:
                raise UserError(f"{address}: cannot be read, after {ATTEMPTS} attempts: {reason}") from error
        time.sleep(wait)
        wait *= 2
    raise AssertionError("the last attempt returns or raises")


def _system_of(address: Address) -> tuple[Any, str]:
    """The file system of an address, and the address's path in it."""
    bucket = address.path.partition("/")[0] if address.scheme == "s3" else ""
    return _open_system(address.scheme, bucket, os.getpid()), _path_in(address)


def _path_in(address: Address) -> str:
    return str(address) if address.scheme.startswith("http") else address.path


@lru_cache(maxsize=32)
def _open_system(scheme: str, bucket: str, _process: int) -> Any:
    """Args: `_process`: connections of the process that this one was forked from are not its own."""
    if scheme == "s3":
        return _open_s3(bucket)
    if scheme == "gs":
        return fs.GcsFileSystem()
    if scheme in ("http", "https"):
        return WebSystem()
    import fsspec

    try:
        system = fsspec.filesystem(scheme)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{scheme}:// needs a package that is missing ({error}); install it with: pip install 'clray[{scheme}]'"
        ) from error
    return fs.PyFileSystem(fs.FSSpecHandler(system))


def _open_s3(bucket: str) -> Any:
    """S3 as AWS's own tools find it: `AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_PROFILE` and credentials."""
    options: dict[str, Any] = {"connect_timeout": 10, "request_timeout": 60}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:
        parts = urlsplit(endpoint if "//" in endpoint else f"https://{endpoint}")
        options |= {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    elif not region:
        region = fs.resolve_s3_region(bucket)
    if region:
        options["region"] = region
    return fs.S3FileSystem(**options)
