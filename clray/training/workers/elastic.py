"""How many workers a group of changing size may have: as many as there is room for now, beside k-means shards.

Ray Train's elastic policy (2.60) counts what nodes have, whoever holds it, and hears of a lost node up to 20 s late. It
would ask for workers that cannot be placed, wait a minute for them, and give up after three times.
"""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import WorkerGroupStartupTimeoutError
from ray.train.v2._internal.execution.scaling_policy import (
    ElasticScalingPolicy,
    NoopDecision,
    ResizeDecision,
    ScalingPolicy,
)

from clray.ray_runtime.actors import free_nodes
from clray.ray_runtime.cluster import carries
from clray.ray_runtime.room import Bundle, Group, Node, count_groups

ASK_SECONDS = 5.0
"""For the k-means service to say where its shards are."""
PAUSE_SECONDS = 1.0
"""Before a group that does not run looks for room again; Ray's controller asks at once."""
LOOK_SECONDS = 60.0
"""For the fewest workers to find room; then it counts as a start that failed, as for a group of fixed size."""
SHARDS_SECONDS = 30.0
"""For shards to be placed before the group takes its room; then it leaves them as much as they may need."""


class ElasticTrainer(TorchTrainer):
    """Ray Train's, with a scaling policy of one's own, for which it has no argument."""

    def __init__(self, policy: ScalingPolicy, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.policy = policy

    def _initialize_and_run_controller(self, **arguments: Any) -> Any:
        # Ray's stubs are those of Train V1.
        return super()._initialize_and_run_controller(**{**arguments, "scaling_policy": self.policy})  # type: ignore[misc]


class FreeRoom(ElasticScalingPolicy):
    """Ray Train's elastic policy by what is free on the nodes that answer, and what the group itself holds of them.

    A running group grows only; it shrinks where a loss ends it. Runs in Ray Train's controller.
    """

    def __init__(
        self, scaling_config: Any, worker: Bundle, service: Any | None, shards: Group, labels: Mapping[str, str]
    ) -> None:
        """Args: `service` is that of k-means, where its `shards` stand beside the group, on nodes with these labels."""
        super().__init__(scaling_config)
        self.worker, self.service, self.shards, self.labels = worker, service, shards, labels
        self._held: Counter[str] = Counter()
        """Workers on each node, of the group as it last ran; no longer free, and not free yet where it has ended."""
        self._looks_since: float | None = None
        """Since when a group that does not run has looked for room."""

    def make_decision_for_running_worker_group(self, worker_group_state: Any, worker_group_status: Any) -> Any:
        self._held = Counter(worker.metadata.node_id for worker in worker_group_state.workers)
        decision = super().make_decision_for_running_worker_group(worker_group_state, worker_group_status)
        grows = isinstance(decision, ResizeDecision) and decision.num_workers > worker_group_state.num_workers
        return decision if grows else NoopDecision()

    def make_decision_for_non_running_worker_group(self) -> Any:
        if self._looks_since is None:
            self._looks_since = time.monotonic()
        decision = super().make_decision_for_non_running_worker_group()
        if isinstance(decision, ResizeDecision):
            self._held, self._looks_since = Counter(), None
        elif time.monotonic() - self._looks_since > LOOK_SECONDS:
            self._looks_since = None
            raise WorkerGroupStartupTimeoutError(self.scaling_config.min_workers)
        else:
            time.sleep(PAUSE_SECONDS)
        return decision

    def _count_possible_workers(self, reserved_resources: Any) -> int:  # noqa: ARG002 - of what nodes have
        nodes = free_nodes()
        unplaced = self._num_unplaced_shards(nodes)
        if unplaced and self._looks_since is not None and time.monotonic() - self._looks_since < SHARDS_SECONDS:
            return 0
        given_back = {name: node.more(self.worker, self._held[name]) for name, node in nodes.items()}
        return fitting_workers(
            list(given_back.values()), self.worker, self.scaling_config.max_workers,
            shards=Group(unplaced, self.shards.bundle), labels=self.labels,
        )  # fmt: skip

    def _num_unplaced_shards(self, nodes: Mapping[str, Node]) -> int:
        """Shards that are on none of these nodes; all of them where the service does not tell."""
        if self.service is None:
            return 0
        try:
            places = ray.get(self.service.shard_nodes.remote(), timeout=ASK_SECONDS)
        except (RayError, GetTimeoutError):
            return self.shards.size
        return sum(place not in nodes for place in places)


def fitting_workers(nodes: list[Node], worker: Bundle, most: int, *, shards: Group, labels: Mapping[str, str]) -> int:
    """As many workers as fit, beside shards that are still to be placed on nodes with these labels."""
    on = [carries(node.labels, labels) for node in nodes]
    return int(min(most, count_groups(nodes, Group(1, worker), beside=shards, on=on)))
