"""The worker that hangs is named also where the others' processes are ended without a word, as by NCCL's watchdog."""

import re
import time

import pytest
import torch.distributed as dist
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from clray.errors import TrainingError
from clray.training.workers import heartbeat
from clray.training.workers.group import error_line, failure_line
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
    deadline = time.monotonic() + 30
    while left[-1:] != ["5"]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)
    pulse.close()
    assert left in (["5"], ["0", "5"]), "each step once"
