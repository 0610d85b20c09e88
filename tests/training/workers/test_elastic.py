"""How many workers a group of changing size may have, by what is free, on nodes that are there or are not."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray.train
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.scaling_policy import NoopDecision, ResizeDecision

from clray.ray_runtime.room import NOTHING, Bundle, Group, Node
from clray.training.workers import elastic
from clray.training.workers.elastic import FreeRoom, fitting_workers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context")
WORKER, SHARD = Bundle(1.0), Bundle(0.5)


class Policy(FreeRoom):
    """Asks nobody; its shards are where a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, nodes: dict[str, Node], *, unplaced: int = 0) -> None:
        scaling: Any = ray.train.ScalingConfig(num_workers=(1, 3), resources_per_worker={"CPU": 1})
        scaling.elastic_resize_monitor_interval_s = 0
        super().__init__(scaling, WORKER, None, Group(2, SHARD, "shard"), {})
        self.unplaced = unplaced
        monkeypatch.setattr(elastic, "free_nodes", lambda: nodes)
        monkeypatch.setattr(elastic, "PAUSE_SECONDS", 0.0)

    def _maybe_send_resource_request(self) -> None:
        pass

    def _get_reserved_resources(self) -> Any:
        return {}

    def _num_unplaced_shards(self, nodes: Any) -> int:  # noqa: ARG002
        return self.unplaced

    def while_running(self, *places: str) -> Any:
        workers = [SimpleNamespace(metadata=SimpleNamespace(node_id=place)) for place in places]
        state = SimpleNamespace(workers=workers, num_workers=len(workers), start_time=float("-inf"))
        return self.make_decision_for_running_worker_group(state, None)


def size(decision: Any) -> int | None:
    assert isinstance(decision, NoopDecision | ResizeDecision)
    return decision.num_workers if isinstance(decision, ResizeDecision) else None


def test_a_running_group_grows_into_what_is_free_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"a": Node(0.5), "b": Node(0.0)}
    policy = Policy(monkeypatch, nodes)
    assert size(policy.while_running("a", "b")) is None
    nodes["c"] = Node(0.5)
    assert size(policy.while_running("a", "b")) is None, "a shard holds the other half of the new node"
    nodes["c"] = Node(1.0)
    assert size(policy.while_running("a", "b")) == 3


def test_a_running_group_does_not_shrink_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(monkeypatch, {"a": Node(0.0)}, unplaced=1)
    assert size(policy.while_running("a", "b")) is None


def test_a_group_that_lost_a_node_takes_what_it_held_on_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = {"a": Node(0.5), "b": Node(0.0), "c": Node(0.0)}
    policy = Policy(monkeypatch, nodes)
    policy.while_running("a", "b", "c")
    del nodes["c"]
    assert size(policy.make_decision_for_non_running_worker_group()) == 2
    # What it held is free now, or was not free after all.
    assert size(policy.make_decision_for_non_running_worker_group()) is None


def test_a_group_that_finds_no_room_for_its_fewest_workers_fails_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy(monkeypatch, {"a": Node(0.5)})
    assert size(policy.make_decision_for_non_running_worker_group()) is None
    monkeypatch.setattr(elastic, "LOOK_SECONDS", -1.0)
    with pytest.raises(WorkerGroupStartupTimeoutError):
        policy.make_decision_for_non_running_worker_group()


def test_shards_are_placed_first_and_get_what_they_may_need_where_that_takes_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = Policy(monkeypatch, {"a": Node(2.0), "b": Node(1.0)}, unplaced=1)
    assert size(policy.make_decision_for_non_running_worker_group()) is None
    monkeypatch.setattr(elastic, "SHARDS_SECONDS", 0.0)
    assert size(policy.make_decision_for_non_running_worker_group()) == 2
    policy.unplaced = 0
    assert size(policy.make_decision_for_non_running_worker_group()) == 3


def test_a_shard_without_the_labels_of_a_node_takes_nothing_of_it() -> None:
    nodes = [Node(1.0, labels={"pool": "cpu"}), Node(1.0)]
    shards = Group(1, SHARD, "shard")
    assert fitting_workers(nodes, WORKER, 3, shards=shards, labels={"pool": "cpu"}) == 1
    assert fitting_workers(nodes, WORKER, 3, shards=NOTHING, labels={"pool": "cpu"}) == 2
    assert fitting_workers(nodes, WORKER, 3, shards=shards, labels={"pool": "gpu"}) == 0
