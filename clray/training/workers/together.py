"""What the workers of a group do together for a checkpoint: each writes its part, rank 0 commits; all take the same."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Int

from clray.errors import UserError
from clray.training.checkpoint import Candidate, first_that_loads
from clray.training.checkpoint_form import Checkpoint, Snapshot
from clray.training.checkpoint_parts import CHECKPOINT_FILE, Place, Written, part_file, read_parts, write_manifest
from clray.training.workers.port import gather_objects


def write_together(place: Place, snapshot: Snapshot, group: Any) -> None:
    """Write a checkpoint of all workers of the group; every rank must call it, with the same place.

    Each writes its own files at the same time as the others. What passes between them is names, sizes and checksums.

    Args:
        group: of all workers, on the CPU, which nothing else uses meanwhile.

    Raises:
        UserError: this worker cannot write; on rank 0 also where another could not. The checkpoints before stay.
    """
    rank, size = dist.get_rank(group), dist.get_world_size(group)
    written, problem = _written(place, snapshot, rank, size)
    told: list[Any] | None = [None] * size if rank == 0 else None
    dist.gather_object((written, problem), told, dst=0, group=group)
    for number, (_, reason) in enumerate(told or [(written, problem)]):
        if reason is not None:
            raise UserError(f"worker {number if told else rank}: {reason}")
    if told is not None:
        try:
            write_manifest(place, {name: each for files, _ in told for name, each in files.items()})
        except OSError as error:
            raise UserError(_unwritten(place, error)) from error


def _written(
    place: Place, snapshot: Snapshot, rank: int, size: int
) -> tuple[dict[str, Written], str | None]:  # fmt: skip
    """The files that this worker has written, and why that failed, if it did."""
    files: dict[str, Written] = {}
    try:
        files[part_file(rank)] = place.write(part_file(rank), partial(torch.save, snapshot.part))
        if snapshot.shared is not None:
            shared = {**snapshot.shared, "meter": snapshot.part["meter"], "bank": None, "num_parts": size}
            files[CHECKPOINT_FILE] = place.write(CHECKPOINT_FILE, partial(torch.save, shared))
    except (OSError, RuntimeError) as error:  # torch reports a failed write as a RuntimeError of its zip writer
        return files, _unwritten(place, error)
    return files, None


def _unwritten(place: Place, error: Exception) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return (
        f"{place.path}: the checkpoint cannot be written ({reason}); the previous one is intact: free some space "
        "and resume"
    )


def restore_together(
    places: Iterable[Place], load: Callable[[Checkpoint], None], rows: Int[np.ndarray, " n"], rank: int, world_size: int
) -> bool:
    """Load the first of these checkpoints that every worker can load; every rank must call it, with the same places.

    Args:
        places: newest first.
        rows: dataset indices of this worker's samples; what another number of workers wrote is dealt anew by them.

    Returns: whether there is one.

    Raises:
        UserError: there are some, and none can be used.
    """
    candidates: Iterable[Candidate] = ((each.path, partial(read_parts, each, rows, rank)) for each in places)
    agreed = partial(_first_problem, world_size)
    return first_that_loads(candidates, load, agreed, is_told=rank == 0) is not None


def _first_problem(world_size: int, problem: str | None) -> str | None:
    return next((each for each in gather_objects(problem, world_size) if each is not None), None)
