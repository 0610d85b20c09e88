"""One command at a time writes into an output folder: locks that end with their holder, however that ends."""

import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from clray.errors import UserError
from clray.redaction import hide_credentials

LOCK_FILE = ".clray.lock"
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""What file systems without locks answer, such as some network mounts."""
log = logging.getLogger(__name__)


@contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """Hold the folder while the block runs; it is made where there is none.

    The system releases the lock when the process dies. Processes that this one starts do not inherit it. A folder that
    was made here and is still empty at the end is removed again.

    Raises:
        UserError: another command holds the folder, or it cannot be written.
    """
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = _acquire(folder / LOCK_FILE, wait=False)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror}); choose another output folder, or correct its permissions"
        ) from error
    except ValueError as error:  # a name that no file system takes
        raise UserError(f"{str(folder)!r}: not a name of a folder ({error})") from error
    try:
        yield
    finally:
        _release(folder / LOCK_FILE, descriptor)
        if made:
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Hold a lock file of this name while the block runs; waits for whoever holds it.

    Raises:
        OSError: the file cannot be made.
    """
    descriptor = _acquire(path, wait=True)
    try:
        yield
    finally:
        _release(path, descriptor)


def require_unlocked(folder: Path) -> None:
    """Raise UserError where another command holds the folder: known early, before work that would be lost.

    Only `folder_locked` makes sure of it.
    """
    try:
        descriptor = os.open(folder / LOCK_FILE, os.O_RDWR)
    except OSError:
        return
    try:
        _lock(descriptor, folder, wait=False)
    finally:
        os.close(descriptor)


def holds_nothing(folder: Path) -> bool:
    """Whether there is no such folder, or an empty one but for the lock."""
    return not folder.exists() or (folder.is_dir() and all(each.name == LOCK_FILE for each in folder.iterdir()))


def _acquire(path: Path, *, wait: bool) -> int:
    """The descriptor of the locked file; Python makes it close-on-exec, so that no other program inherits the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor, path.parent, wait=wait)
            if _is_at(path, descriptor):
                _write_holder(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _release(path: Path, descriptor: int) -> None:
    # Removed while it is held: who waits for this file finds that it is gone, and takes the next one.
    with suppress(OSError):
        path.unlink()
    os.close(descriptor)


def _lock(descriptor: int, folder: Path, *, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f"{folder}: in use by {_holder(descriptor)}; wait until it ends, or choose another folder or name"
        ) from None
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        log.warning(
            "%s lies on a file system without locks (%s): do not start a second command on it", folder, error.strerror
        )


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the locked file is still the one of this name; the holder before removed it otherwise."""
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    own = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)


def _write_holder(descriptor: int) -> None:
    program = Path(sys.argv[0])
    name = program.parent.name if program.name == "__main__.py" else program.name
    holder = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        "command": hide_credentials(shlex.join([name, *sys.argv[1:]])),
    }
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _holder(descriptor: int) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 65536, 0))
        return f"process {holder['pid']} on {holder['host']} since {holder['since']} ({str(holder['command'])[:500]})"
    except (ValueError, KeyError, TypeError):
        return "another command"
