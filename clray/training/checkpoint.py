"""Checkpoint files: written so that a kill or a full disk never costs the one before, read without running code."""

import logging
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import torch

from clray.errors import UserError

CHECKPOINT_FILE = "checkpoint.pt"
BEST_FILE = "best.pt"
GROUP_FOLDER = "workers"
"""Where a worker group keeps its checkpoints, in the folder of the run."""
log = logging.getLogger(__name__)


def write_checkpoint(folder: Path, checkpoint: dict[str, Any], *, num_kept: int = 1) -> Path:
    """Write `checkpoint.pt`, and keep those before it as `checkpoint.1.pt`, ...; a reader finds no half of one.

    Raises:
        UserError: it cannot be written, as on a full disk; those before it stay as they were.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CHECKPOINT_FILE
    partial = path.with_suffix(".partial")
    try:
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        # torch reports a failed write as a RuntimeError of its zip writer.
        partial.unlink(missing_ok=True)
        free = f"{shutil.disk_usage(folder).free / 2**20:.0f} MiB are free there"
        raise UserError(
            f"{path}: the checkpoint cannot be written ({_first_line(error)}; {free}); the previous one is intact: "
            "free some space and resume with --resume"
        ) from error
    for age in range(num_kept - 1, 0, -1):
        older, newer = _aged(path, age), _aged(path, age - 1)
        if newer.exists():
            # The newest keeps its name all the while, as a second name of the same file.
            link = older.with_suffix(".link")
            link.unlink(missing_ok=True)
            os.link(newer, link)
            link.replace(older)
    partial.replace(path)
    return path


def keep_best(folder: Path, checkpoint: Path) -> None:
    """Keep a checkpoint file as the run's `best.pt`."""
    partial = folder / f"{BEST_FILE}.partial"
    partial.unlink(missing_ok=True)
    try:
        os.link(checkpoint, partial)
    except OSError:  # another file system, or one without links
        shutil.copyfile(checkpoint, partial)
    partial.replace(folder / BEST_FILE)


def newest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest checkpoint in a run's folder that is whole, or None where there is none at all.

    One that is cut short is left out, with a warning, for the one before it.

    Raises:
        UserError: there are checkpoints, but none is whole.
    """
    ages = range(1 + len(list(folder.glob("checkpoint.*.pt"))))
    paths = [path for age in ages if (path := _aged(folder / CHECKPOINT_FILE, age)).exists()]
    refused: list[str] = []
    for path in paths:
        try:
            checkpoint = read_checkpoint(path)
        except UserError as error:
            refused.append(str(error))
            continue
        for reason in refused:
            log.warning("%s; resuming from %s", reason, path)
        return checkpoint
    if refused:
        raise UserError("\n".join([*refused, f"{folder}: no checkpoint is complete; start a new run"]))
    return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load a checkpoint file, or the newest in a run's folder, without running code from it.

    Raises:
        UserError: no checkpoint, or one that is cut short or not clray's.
    """
    if path.is_dir():
        # A worker group's checkpoints lie in folders that Ray Train names by time.
        of_group = sorted(path.glob(f"{GROUP_FOLDER}/*/{CHECKPOINT_FILE}"))
        path = of_group[-1] if of_group else path / CHECKPOINT_FILE
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; give a checkpoint.pt or the folder of a run")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"{path}: not a complete checkpoint: {_first_line(error)}") from error
    if not isinstance(checkpoint, dict) or "cluster_ids" not in checkpoint:
        raise UserError(f"{path}: not a clray checkpoint")
    return checkpoint


def _aged(path: Path, age: int) -> Path:
    return path if age == 0 else path.with_suffix(f".{age}.pt")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
