"""A worker that is lost while its group starts costs that start, not the run; a group without room says so."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from ray.exceptions import RayTaskError
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2.api.exceptions import ControllerError

from clray.config import Config
from clray.data.load import load_dataset
from clray.errors import TrainingError
from clray.training.workers import group
from clray.training.workers.reports import Address


@pytest.mark.parametrize(
    ("said", "decision"),
    [
        ("RuntimeError: [pair.cc:534] Connection closed by peer [10.0.0.7]:47211", FailureDecision.RETRY),
        ("torch.distributed.DistStoreError: Timed out after 601 seconds waiting for clients", FailureDecision.RAISE),
    ],
    ids=["lost", "nobody-lost"],
)
def test_a_start_under_which_a_worker_is_lost_is_repeated_as_often_as_the_run_may_fail(
    tiny_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    said: str,
    decision: FailureDecision,
) -> None:
    def tell(*_: object) -> None:
        raise RayTaskError("join", f"Traceback\n{said}", RuntimeError(said))

    monkeypatch.setattr(_TorchBackend, "on_start", tell)
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "get", lambda value: value)
    config = tiny_config(train={"num_workers": 2, "max_failures": 7})
    data = load_dataset(config.data)
    trainer = group._trainer(config, config, data, None, None, tmp_path, None, Address(1, b"key"), None)
    joining = pickle.loads(pickle.dumps(trainer.backend_config))  # in Ray Train's controller
    policy = DefaultFailurePolicy(trainer.run_config.failure_config)
    decisions = []
    for _ in range(7):
        with pytest.raises(Exception, match=r"Connection closed by peer|Timed out") as told:
            joining.backend_cls().on_start(None, joining)
        decisions.append(policy.make_decision(ControllerError(told.value)))
    assert set(decisions) == {decision}


def test_a_group_that_finds_no_room_after_losses_says_what_the_nodes_have(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Starved:
        def fit(self) -> None:
            raise ControllerError(WorkerGroupStartupTimeoutError(2))

    left = [{"NodeID": "a", "Alive": True, "Resources": {"CPU": 1.0}}, {"NodeID": "b", "Alive": False}]
    monkeypatch.setattr(group, "_trainer", lambda *_: Starved())
    monkeypatch.setattr(ray, "put", lambda value: value)
    monkeypatch.setattr(ray, "get", lambda value: value)
    monkeypatch.setattr(ray, "nodes", lambda: left)
    config = tiny_config(train={"num_workers": 2, "cpus_per_worker": 1})
    with pytest.raises(TrainingError, match=r"no room came for 2 workers of 1 CPU on the nodes .*: 1 node of 1 CPU\."):
        group.train_in_group(config, load_dataset(config.data), tmp_path, lambda _: None, service=None)
