"""Files from far away on this machine: whole, shared, up to a bound, the least recently used go first."""

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG

from clray.data.remote.address import FOLDER, Address, address_at
from clray.data.remote.systems import RemoteFile, copy, find
from clray.errors import UserError
from clray.folder_lock import in_turn

BOUND_FILE, DEFAULT_BYTES = ".bound", 50 * 2**30
PARTIAL, ABOUT = ".partial", ".about"
NUM_THREADS = 8
"""Files that are fetched at a time."""
STALE_SECONDS = 3600
"""What was not written to for so long is left by a process that died."""
FULL = (errno.ENOSPC, errno.EDQUOT)


def set_bound(root: Path, num_bytes: int) -> None:
    """Bound the files of a cache, for all who use it from now on.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        if _bound(root) != num_bytes:
            partial = root / FOLDER / f"{BOUND_FILE}.{os.getpid()}{PARTIAL}"
            partial.write_text(str(num_bytes), encoding="utf-8")
            partial.replace(root / FOLDER / BOUND_FILE)
    except OSError as error:
        raise UserError(
            f"data.cache_path: {root} cannot be written ({error.strerror}); choose another place"
        ) from error


def present(place: Path) -> Path:
    """The file, fetched where it is one of the cache and not there; files of other folders are left to the caller.

    Raises:
        UserError: it cannot be fetched, or there is no room for it.
    """
    known = address_at(place)
    if known is None:
        return place
    try:
        os.utime(place)  # the least recently used go first
        return place
    except FileNotFoundError:
        address, root = known
        file = find(address)
        if file is None:
            raise UserError(f"{address}: expected a file; it is a folder") from None
        _fetch(root, place, file)
    return place


def stamp_of(place: Path) -> str:
    """What changes when a file is written anew: its size and time, or of one far away what its system tells of it."""
    known = address_at(place)
    if known is None:
        try:
            about = place.stat()
        except OSError:
            return "none"
        return f"{about.st_size} {about.st_mtime_ns}"
    try:
        return f"{place.stat().st_size} {place.with_name(f'.{place.name}{ABOUT}').read_text(encoding='utf-8')}"
    except OSError:
        file = find(known[0])
        return "none" if file is None else f"{file.num_bytes} {file.stamp}"


def fetch_all(root: Path, files: Sequence[RemoteFile]) -> None:
    """Fetch what fits of these files, several at a time; copies of files that have changed since are replaced."""
    chosen, num_bytes, bound = [], 0, _bound(root)
    for file in files:
        place = file.address.place(root)
        _forget_changed(place, file)
        num_bytes += file.num_bytes
        if num_bytes <= bound:
            chosen.append((place, file))
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        # All are waited for, so that no thread goes on after an error.
        for done in [pool.submit(_fetch, root, place, file) for place, file in chosen]:
            done.result()


def _forget_changed(place: Path, file: RemoteFile) -> None:
    about = place.with_name(f".{place.name}{ABOUT}")
    with suppress(OSError):
        if place.stat().st_size != file.num_bytes or about.read_text(encoding="utf-8") != file.stamp:
            place.unlink()


def _fetch(root: Path, place: Path, file: RemoteFile) -> None:
    """Fetch a file unless it is there: another process may have done it meanwhile."""
    partial = place.with_name(f".{place.name}{PARTIAL}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with in_turn(_lock_of(root, str(file.address))):
            if place.exists():
                os.utime(place)
                return
            try:
                _make_room(root, partial, file)
                copy(file, partial)
                place.with_name(f".{place.name}{ABOUT}").write_text(file.stamp, encoding="utf-8")
                partial.replace(place)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise _full(root, file.address, file.num_bytes) from error
        raise UserError(f"data.cache_path: {root} cannot be written ({error}); choose another place") from error


def _make_room(root: Path, partial: Path, file: RemoteFile) -> None:
    """Remove the least recently used files until the new one fits, and hold its room."""
    bound = _bound(root)
    if file.num_bytes > bound:
        raise UserError(
            f"{file.address}: has {_gib(file.num_bytes)} GiB, more than data.cache_limit_gib={_gib(bound)}; raise it"
        )
    with in_turn(_lock_of(root, "room")):
        kept = sorted(_files_of(root))
        total = sum(size for _, size, _ in kept)
        while kept and (total + file.num_bytes > bound or shutil.disk_usage(root).free < file.num_bytes):
            used, size, path = kept.pop(0)
            if path.name.endswith(PARTIAL) and time.time() - used / 1e9 < STALE_SECONDS:
                continue  # another process writes it
            path.unlink(missing_ok=True)
            path.with_name(f".{path.name}{ABOUT}").unlink(missing_ok=True)
            total -= size
        if shutil.disk_usage(root).free < file.num_bytes:
            raise _full(root, file.address, file.num_bytes)
        with partial.open("wb") as held:
            held.truncate(file.num_bytes)


def _files_of(root: Path) -> list[tuple[int, int, Path]]:
    """When each file of the cache was used last, its size, and its place."""
    found = []
    for folder, _, names in os.walk(root / FOLDER):
        for name in names:
            path = Path(folder, name)
            with suppress(OSError):  # gone meanwhile
                about = path.stat()
                if S_ISREG(about.st_mode) and (not name.startswith(".") or name.endswith(PARTIAL)):
                    found.append((about.st_mtime_ns, about.st_size, path))
    return found


def _lock_of(root: Path, name: str) -> Path:
    return root / FOLDER / f".{hashlib.sha256(name.encode()).hexdigest()[:24]}.lock"


def _bound(root: Path) -> int:
    try:
        return int((root / FOLDER / BOUND_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return DEFAULT_BYTES


def _full(root: Path, address: Address, num_bytes: int) -> UserError:
    return UserError(
        f"data.cache_path: {root} is full: {address} needs {_gib(num_bytes)} GiB; free some, or choose another place"
    )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.3g}"
