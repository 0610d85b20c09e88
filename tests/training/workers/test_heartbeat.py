"""The worker that hangs is named also where the others' processes are ended without a word, as by NCCL's watchdog."""

import re
import time

import pytest
import torch.distributed as dist
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from clray.errors import TrainingError
from clray.kmeans.attempts import new_attempt
from clray.ray_runtime import board
from clray.training.workers import heartbeat
from clray.training.workers.failing import error_line, failure_line, last_steps, step_note
from clray.training.workers.heartbeat import Heartbeat, name_hung


class GroupFailed(Exception):
    """As Ray Train's: the failure of each worker, by rank."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__("the group failed")
        self.worker_failures = dict(enumerate(failures))


def lost() -> Exception:
    return WorkerHealthCheckFailedError("A worker health check failed.", RuntimeError("The actor died: SIGABRT"))


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([7, 6, 7], r"worker 1 \(in step 6 of the run\) did not come to step 7, where others waited up to 30 s"),
        ([None, 6, 7], r"worker 1 \(in step 6"),
        ([0, 2, 1], r"worker 0 \(in step 0 of the run\) and worker 2 \(in step 1 of the run\)"),
        ([7, 7], "None"),
        ([None, None], "None"),
    ],
)
def test_whoever_is_behind_hangs(steps: list[int | None], expected: str) -> None:
    assert re.match(expected, str(name_hung(steps, 30.0)))


def test_steps_tell_only_where_no_worker_says_why_it_failed() -> None:
    ended = GroupFailed(lost(), lost())
    assert re.fullmatch(r"worker 1 \(in step 3 .*cut off\? \(.+\)", failure_line(ended, [4, 3], 30.0))
    assert failure_line(ended, [4, 4], 30.0) == error_line(ended)
    told = GroupFailed(lost(), TrainingError("the loss is nan"))
    assert failure_line(told, [4, 3], 30.0) == error_line(told) == "the loss is nan"


def test_each_worker_leaves_its_step_outside_the_group_while_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", dict)
    left: list[str] = []
    pulse = Heartbeat(1, 2, left.append)
    pulse.store = dist.HashStore()
    pulse.beat(5)
    deadline = time.monotonic() + 60
    while left[-1:] != ["5"]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    pulse.close()
    assert left in (["5"], ["0", "5"]), "each step once"


def test_steps_of_an_attempt_before_are_not_those_of_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was stopped may wake on its lost node, and leave its step after all others."""
    notes: dict[str, bytes] = {}

    def put(name: str, text: str | bytes, *, overwrite: bool, namespace: str) -> bool:  # noqa: ARG001
        existed = name in notes
        if overwrite or not existed:
            notes[name] = text if isinstance(text, bytes) else text.encode()
        return existed

    monkeypatch.setattr(board, "_internal_kv_put", put)
    monkeypatch.setattr(board, "_internal_kv_get", lambda name, **_: notes.get(name))
    monkeypatch.setattr(board, "_internal_kv_exists", lambda name, **_: name in notes)
    assert last_steps("run", 2) == [None, None]
    first, second = new_attempt("run"), new_attempt("run")
    for attempt, rank, step in [(first, 0, 90), (second, 0, 60), (second, 1, 59), (first, 1, 89)]:
        board.leave_note(step_note(attempt, rank), str(step))
    assert last_steps("run", 2) == [60, 59]
