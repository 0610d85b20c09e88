"""The SQLite file of a local MLflow store: made whole or not at all, and looked at before it is used.

MLflow makes its tables by some fifty migrations that are not one transaction. A kill or a full disk in between leaves a
file that no later start can use.
"""

import glob
import logging
import sqlite3
import urllib.parse
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from clray.errors import UserError
from clray.folder_lock import in_turn

BUSY_TIMEOUT_SECONDS = 5.0
LARGEST_CHECKED_BYTES = 2**28
"""Every page of a larger file is not read before the work begins."""
FILLED_BY_MIGRATIONS = {"alembic_version", "workspaces"}
log = logging.getLogger(__name__)


def sqlite_uri(path: Path) -> str:
    """The address of an SQLite store; quoted where the path holds what means something in an address."""
    if not set(str(path)) & set("?%"):
        return f"sqlite:///{path}"
    from sqlalchemy.engine import URL

    # With the driver's name MLflow does not take the address for a path, of which it would make the folders.
    return URL.create("sqlite+pysqlite", database=str(path)).render_as_string(hide_password=False)


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite store; None for a store of another kind or in memory.

    Raises:
        UserError: not an address.
    """
    if not uri.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        database = make_url(uri).database
    except (ArgumentError, ValueError) as error:
        raise UserError(f"tracking.uri: expected for example sqlite:////folder/mlflow.db; got {uri!r}") from error
    return None if database in (None, "", ":memory:") else Path(str(database))


def make_store_file(path: Path) -> None:
    """Make an MLflow store where there is none, or one that a kill left unfinished and without content.

    Made under another name and renamed, by one process at a time.

    Raises:
        UserError: a file that cannot be used, or no room for a new one.
    """
    check_store_file(path)
    if is_finished(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with in_turn(path.with_name(path.name + ".lock")):
            if is_finished(path):
                return
            for left in path.parent.glob(f"{glob.escape(path.name)}.*.partial*"):
                left.unlink()
            partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
            _create(partial)
            _move_aside(path)
            partial.replace(path)
    except OSError as error:
        raise UserError(
            f"{path}: the MLflow store cannot be made ({error.strerror or error}); make room there, or choose another "
            "output folder or tracking.uri"
        ) from error


def check_store_file(path: Path, *, for_writing: bool = True) -> None:
    """Look whether the file can be used; one that is missing or empty can be made.

    Raises:
        UserError: another process keeps it locked, it cannot be written, or it is damaged.
    """
    if not path.exists() or path.stat().st_size == 0:
        return
    try:
        with closing(_connect(path, "rw" if for_writing else "ro")) as connection:
            if for_writing:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("PRAGMA user_version = 1")  # rolled back; only a write tells whether one can
            if path.stat().st_size <= LARGEST_CHECKED_BYTES:
                (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if found != "ok":
                    raise sqlite3.DatabaseError(found.splitlines()[-1])
    except sqlite3.DatabaseError as error:
        raise UserError(f"{path}: the MLflow store cannot be used: {_advice(error)}") from error


def _advice(error: sqlite3.DatabaseError) -> str:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"another process has kept it locked for {BUSY_TIMEOUT_SECONDS:g} s; end that process, or wait for it"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return "it cannot be written; correct its permissions and those of its folder, or choose another tracking.uri"
    if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
        return f"{error}; make room on its disk"
    return (
        f"it is damaged ({error}). Restore a copy of it; or move it away, and write each run again from what its "
        "folder keeps: clray upload FOLDER"
    )


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    file = path.resolve()
    # What a process that was killed has left half written is rolled back by the next that opens the file to write.
    if file.with_name(file.name + "-journal").exists():
        mode = "rw"
    address = f"file:{urllib.parse.quote(str(file))}?mode={mode}"
    return sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_SECONDS, isolation_level=None)


def is_finished(path: Path) -> bool:
    """Whether there is a store with content; the last thing that MLflow makes in a new one is an experiment."""
    if not path.exists() or path.stat().st_size == 0:
        return False
    with closing(_connect(path, "ro")) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return any(
            connection.execute(f'SELECT EXISTS (SELECT 1 FROM "{name}")').fetchone()[0]
            for name in tables
            if name not in FILLED_BY_MIGRATIONS
        )


def _create(path: Path) -> None:
    """Raises OSError where MLflow cannot make its tables there."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        with _quiet("mlflow.store.db.utils", "alembic"):
            MlflowClient(sqlite_uri(path)).search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        for left in path.parent.glob(f"{glob.escape(path.name)}*"):
            left.unlink()
        raise OSError((str(error).splitlines() or [type(error).__name__])[0]) from error


def _move_aside(path: Path) -> None:
    """Keep an unfinished file under another name, with its journal, which must not be taken for the new file's."""
    if not path.exists():
        return
    kept = path.with_name(path.name + ".unfinished")
    log.warning("%s is incomplete: the command that made it was killed. It is kept as %s and replaced", path, kept)
    for ending in ("-journal", "-wal", "-shm", ""):
        each = path.with_name(path.name + ending)
        if each.exists():
            each.replace(kept.with_name(kept.name + ending))


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Without what these loggers say while the block runs, but for warnings: a library prints nothing unasked."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
