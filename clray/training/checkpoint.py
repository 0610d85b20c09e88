"""Checkpoint files: written so that a kill or a full disk never costs the one before, read without running code."""

import errno
import logging
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import torch

from clray.errors import UserError
from clray.training.checkpoint_form import Checkpoint, checked
from clray.training.checkpoint_parts import CHECKPOINT_FILE, Place, Rows, committed, link_or_copy, read_parts

BEST_FILE = "best.pt"
GROUP_FOLDER = "workers"
"""Where a worker group keeps its checkpoints, in the folder of the run."""
Candidate = tuple[str, Callable[[], Checkpoint]]
"""Where a checkpoint lies, and what reads it."""
log = logging.getLogger(__name__)


def write_checkpoint(folder: Path, checkpoint: Checkpoint, *, num_kept: int = 1) -> Path:
    """Write `checkpoint.pt`, and keep those before it as `checkpoint.1.pt`, ...; a reader finds no half of one.

    Raises:
        UserError: it cannot be written, as on a full disk; those before it stay as they were.
    """
    path = folder / CHECKPOINT_FILE
    partial = path.with_suffix(".partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        for age in range(num_kept - 1, 0, -1):
            older, newer = _aged(path, age), _aged(path, age - 1)
            if newer.exists():
                # The newest keeps its name all the while, as a second name of the same file.
                link_or_copy(newer, older)
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        # torch reports a failed write as a RuntimeError of its zip writer.
        partial.unlink(missing_ok=True)
        raise UserError(
            f"{path}: the checkpoint cannot be written ({_first_line(error)}{_free_space(folder)}); the previous "
            "one is intact: free some space and resume"
        ) from error
    return path


def keep_best(folder: Path, checkpoint: Path) -> None:
    """Keep a checkpoint file as the run's `best.pt`; a reader finds the old one or the new one, whole."""
    link_or_copy(checkpoint, folder / BEST_FILE)


def has_checkpoint_of_one(folder: Path) -> bool:
    """Whether `checkpoint.pt` is there and is no copy of what the workers of a group share; a damaged one is not told.

    A group with a storage has its own checkpoints there alone.
    """
    path = folder / CHECKPOINT_FILE
    try:
        return path.exists() and "num_parts" not in torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # damaged bytes make the reader raise nearly anything
        return True


def newest_checkpoint(
    folder: Path, load: Callable[[Checkpoint], None] | None = None, rows: Rows = None
) -> Checkpoint | None:
    """The newest checkpoint in a run's folder that is whole and loads, or None where there is none at all.

    One that is damaged is left out, with a warning, for the one before it. Those of a worker group are newer than those
    of a single worker, which removes them.

    Args:
        load: takes the checkpoint over, and fails where it does not fit; what it has taken over by then, the next
            one replaces.
        rows: samples whose part of the bank is wanted too; see `read_parts`.

    Raises:
        UserError: there are checkpoints, but none can be used.
    """
    return first_that_loads(_candidates(folder, rows), load)


def _candidates(folder: Path, rows: Rows) -> Iterator[Candidate]:
    for each in committed(Place.here(folder / GROUP_FOLDER)):
        yield each.path, partial(read_parts, each, rows)
    for age in range(1 + len(list(folder.glob("checkpoint.*.pt")))):
        path = _aged(folder / CHECKPOINT_FILE, age)
        if path.exists():
            yield str(path), partial(_read, path)


def first_that_loads(
    candidates: Iterable[Candidate],
    load: Callable[[Checkpoint], None] | None = None,
    agreed: Callable[[str | None], str | None] = lambda problem: problem,
    *,
    is_told: bool = True,
) -> Checkpoint | None:
    """The first of these that is whole and loads; see `newest_checkpoint`.

    Args:
        agreed: makes of a worker's problem, or None, the first of any worker, so that all take the same checkpoint.
        is_told: whether this worker warns of those left out.
    """
    refused: list[str] = []
    for where, read in candidates:
        problem: str | None = None
        try:
            checkpoint = read()
            if load is not None:
                _load(checkpoint, where, load)
        except UserError as error:
            problem = str(error)
        problem = agreed(problem)
        if problem is not None:
            refused.append(problem)
            continue
        for reason in refused if is_told else ():
            log.warning("%s; resuming from %s", reason, where)
        return checkpoint
    if refused:
        raise UserError("\n".join([*refused, "no checkpoint of the run can be used; start a new run"]))
    return None


def _load(checkpoint: Checkpoint, where: str, load: Callable[[Checkpoint], None]) -> None:
    try:
        load(checkpoint)
    except UserError as error:
        raise UserError(f"{where}: {error}") from error
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise UserError(f"{where}: does not fit the run: {type(error).__name__}: {_first_line(error)}") from error


def read_checkpoint(path: Path, rows: Rows = None) -> Checkpoint:
    """Load a checkpoint file, or the newest whole one in a run's folder, without running code from it.

    Args:
        rows: of a worker group's, samples whose part of the bank is wanted too; see `read_parts`.

    Raises:
        UserError: no checkpoint, or one that is cut short, damaged or not clray's.
    """
    if path.is_dir():
        found = newest_checkpoint(path, rows=rows)
        if found is not None:
            return found
        path = path / CHECKPOINT_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; give a checkpoint.pt or the folder of a run")
    try:
        return _read(path)
    except UserError as error:
        raise UserError(f"{error}; use another one, such as a checkpoint.1.pt or best.pt beside it") from error


def _read(path: Path) -> Checkpoint:
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes make the reader raise nearly anything
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which a file that is cut short gives
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
        reason = (
            "it holds more than tensors and plain values, or is damaged"
            if zipfile.is_zipfile(path)
            else "it is cut short, or another kind of file"
        )
        raise UserError(f"{path}: not a complete checkpoint of clray: {reason}") from error
    return checked(tree, str(path))


def _aged(path: Path, age: int) -> Path:
    return path if age == 0 else path.with_suffix(f".{age}.pt")


def _free_space(folder: Path) -> str:
    try:
        return f"; {shutil.disk_usage(folder).free / 2**20:.0f} MiB are free there"
    except OSError:
        return ""


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
