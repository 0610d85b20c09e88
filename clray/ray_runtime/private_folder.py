"""The temporary folder of a Ray that clray starts: for this user alone, short enough for sockets, removed at the end.

Ray logs the environment that it hands to trials, AWS keys with it, and gives its folder to all (mode 0777).
"""

import atexit
import fcntl
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from clray.errors import UserError

log = logging.getLogger(__name__)
PREFIX, INNER = "clray-", "r"
SOCKET_BYTES = 103 if os.uname().sysname == "Darwin" else 107
"""The longest path of a Unix socket."""
BELOW_BYTES = len("/clray-12345678/r/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
"""What the folder here and Ray add to the path of the folder that holds it."""
MAX_BYTES = SOCKET_BYTES - BELOW_BYTES
REMOVE_SECONDS = 5.0
STALE_SECONDS = 3600.0


def make_private_folder(stop: Callable[[], None]) -> Path:
    """A new folder for Ray, in a folder that only this user may enter; both go when the process ends.

    Args:
        stop: ends what writes there; called before the folder is removed.

    Raises:
        UserError: no folder for temporary files has a path that is short enough.
    """
    parent = _parent()
    _remove_stale(parent)
    private = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))  # mode 0700
    held = os.open(private, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)  # a sign for `_remove_stale`, until the process ends
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            stop()
            _remove(private)

    atexit.register(remove)
    inner = private / INNER
    inner.mkdir()
    return inner


def _parent() -> Path:
    """Where RAY_TMPDIR or TMPDIR say, or in /tmp where TMPDIR is too long for Ray's sockets."""
    chosen = os.environ.get("RAY_TMPDIR")
    usual = Path(tempfile.gettempdir())
    for folder in [Path(chosen)] if chosen else [usual, Path("/tmp"), Path("/var/tmp")]:
        if len(os.fsencode(folder.absolute())) <= MAX_BYTES and os.access(folder, os.W_OK | os.X_OK):
            if folder != usual and not chosen:
                log.warning(
                    "TMPDIR=%s is too long for Ray's sockets; Ray keeps its temporary files in %s", usual, folder
                )
            return folder.absolute()
    raise UserError(
        f"{'RAY_TMPDIR' if chosen else 'TMPDIR'}={chosen or usual}: Ray's sockets need a folder of at most {MAX_BYTES} "
        "bytes that can be written; set RAY_TMPDIR to a shorter one, such as /tmp"
    )


def _remove(private: Path) -> None:
    """Remove the folder, though processes that are about to end may still write there."""
    deadline = time.monotonic() + REMOVE_SECONDS
    while private.exists() and time.monotonic() < deadline:
        shutil.rmtree(private, ignore_errors=True)
        time.sleep(0.05)


def _remove_stale(parent: Path) -> None:
    """Remove the folders of this user's processes that were killed."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            about = folder.stat(follow_symlinks=False)
            if about.st_uid != os.getuid() or time.time() - about.st_mtime < STALE_SECONDS or folder.is_symlink():
                continue
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # its process lives
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(held)
