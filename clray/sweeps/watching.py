"""What others on the Ray cluster see of a sweep while it runs: a board for `clray status`, and Prometheus metrics."""

import time
import uuid
from collections.abc import Sequence
from typing import Any

import ray
from ray.util.metrics import Gauge

from clray.sweeps.trials import TrialRecord

NAMESPACE = "clray"
READ_TIMEOUT_SECONDS = 5.0
STATES = ("pending", "running", "finished", "pruned", "failed", "stopped")
GAUGES = {
    "train/samples_per_second": ("clray_samples_per_second", "Images trained on per second, by trial."),
    "recluster/age_epochs": ("clray_cluster_age_epochs", "Epochs since the clusters in use were computed, by trial."),
    "recluster/stall_seconds": (
        "clray_stall_seconds",
        "Seconds of the last epoch spent waiting for clusters, by trial.",
    ),
}
"""Metrics of a trial that are exported; Ray puts `ray_` before their names."""


@ray.remote(num_cpus=0, max_restarts=-1)
class Board:
    """Holds what a sweep says of itself; ends with the sweep, and moves where its node is lost."""

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def write(self, state: dict[str, Any]) -> None:
        self.state = state

    def read(self) -> dict[str, Any]:
        return self.state


class Watch:
    """Keeps the board and the gauges up to date."""

    def __init__(self, name: str, num_trials: int, metric: str) -> None:
        self.name, self.num_trials, self.metric, self.started = name, num_trials, metric, time.time()
        self.board = Board.options(name=f"{name}-{uuid.uuid4().hex[:8]}", namespace=NAMESPACE).remote()
        self.gauges = {
            key: Gauge(name, description=text, tag_keys=("sweep", "trial")) for key, (name, text) in GAUGES.items()
        }
        self.trials = Gauge("clray_trials", description="Trials by state.", tag_keys=("sweep", "state"))

    def update(self, records: Sequence[TrialRecord], changed: TrialRecord) -> None:
        """Tell of a trial that changed, and of all."""
        counts = {state: sum(record.state == state for record in records) for state in STATES}
        counts["pending"] += self.num_trials - len(records)
        scored = [record for record in records if self.metric in record.metrics]
        # References are held against, and best only where there is nothing else.
        best = max(scored, key=lambda r: (not r.role.is_reference, r.metrics[self.metric]), default=None)
        state = {
            "sweep": self.name,
            "trials": self.num_trials,
            **counts,
            "best": None if best is None else best.point.name,
            self.metric: None if best is None else best.metrics[self.metric],
            "started": self.started,
        }
        self.board.write.remote(state)
        for name, count in counts.items():
            self.trials.set(count, tags={"sweep": self.name, "state": name})
        for key, gauge in self.gauges.items():
            if key in changed.metrics:
                gauge.set(changed.metrics[key], tags={"sweep": self.name, "trial": changed.point.name})


def read_boards() -> list[dict[str, Any]]:
    """What the sweeps on this process's Ray cluster say of themselves, the oldest first."""
    names = [each["name"] for each in ray.util.list_named_actors(all_namespaces=True) if each["namespace"] == NAMESPACE]
    found: list[dict[str, Any]] = []
    for name in names:
        try:
            found.append(ray.get(ray.get_actor(name, NAMESPACE).read.remote(), timeout=READ_TIMEOUT_SECONDS))
        except (ValueError, ray.exceptions.RayError, TimeoutError):
            continue  # it ended meanwhile
    return sorted((each for each in found if each), key=lambda each: each["started"])
