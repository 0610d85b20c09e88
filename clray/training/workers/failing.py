"""Why a worker group failed, in one line, and the notes of its workers that tell which of them hung."""

from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError

from clray.errors import TrainingError, UserError
from clray.kmeans.attempts import Attempt, newest_attempt
from clray.ray_runtime.board import read_note
from clray.ray_runtime.cluster import cluster_nodes
from clray.ray_runtime.room import Group, describe
from clray.training.workers.heartbeat import name_hung

LOST = (WorkerHealthCheckFailedError, WorkerHealthCheckTimeoutError)


def step_note(attempt: Attempt, rank: int) -> str:
    """The name of the note in which a worker leaves its step, which no worker of an attempt before can overwrite."""
    return f"{attempt.run}/{attempt.number}/{rank}"


def starved_line(workers: Group) -> str:
    """What a group says that found no room again and again: after a loss the nodes that are left may be too few."""
    return (
        f"no room came for {workers} on the nodes of the Ray cluster: {describe(cluster_nodes())}. Others may hold it, "
        "or nodes were lost; add nodes or lower train.num_workers, and resume"
    )


def last_steps(run: str, world_size: int) -> list[int | None]:
    """The last step of each worker in the newest attempt of a run, as far as it was heard."""
    attempt = newest_attempt(run)
    notes = [None if attempt is None else read_note(step_note(attempt, rank)) for rank in range(world_size)]
    return [None if note is None else int(note) for note in notes]


def failure_line(error: BaseException, steps: list[int | None], timeout_seconds: float) -> str:
    """Why a group failed, in a line; where its processes were ended without a word, also which worker hung.

    Args:
        steps: the last step of each worker; see `name_hung`.
    """
    line = error_line(error)
    hung = name_hung(steps, timeout_seconds) if _is_lost(error) else None
    return line if hung is None else f"{hung} ({line})"


def _is_lost(error: BaseException) -> bool:
    """Whether no worker told why it failed: its process was gone, as where NCCL's watchdog ended it."""
    failures = getattr(error, "worker_failures", None) or {}
    return bool(failures) and all(isinstance(each, LOST) for each in failures.values())


def error_line(error: BaseException) -> str:
    """The message of the innermost cause, that of the first failed worker, in place of a nest of remote tracebacks."""
    failures = getattr(error, "worker_failures", None)
    while failures:
        # A worker that names another says more than that other's silence.
        error = next((each for each in failures.values() if _is_training_error(each)), next(iter(failures.values())))
        failures = getattr(error, "worker_failures", None)
    while (cause := getattr(error, "cause", None) or error.__cause__) is not None:
        error = cause
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    return text if isinstance(error, UserError | TrainingError | RuntimeError) else f"{type(error).__name__}: {text}"


def _is_training_error(error: BaseException) -> bool:
    cause = getattr(error, "cause", None) or error.__cause__ or error
    return isinstance(cause, TrainingError)
