"""What others on the Ray cluster see of a sweep while it runs: a board for `clray status`, and Prometheus metrics."""

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import ray
from ray.util.metrics import Gauge

if TYPE_CHECKING:  # `clray status` does without torch, which takes 2 s to import
    from clray.sweeps.trials import TrialRecord

NAMESPACE = "clray"
READ_TIMEOUT_SECONDS = 5.0
STATES = ("pending", "running", "finished", "pruned", "skipped", "failed", "stopped")
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


class Tally:
    """Trials by state and the best so far, kept as trials change: to count 10,000 anew each time takes minutes."""

    def __init__(self, metric: str) -> None:
        self.metric = metric
        self.counts, self.states = Counter[str](), dict[int, str]()
        self.best: TrialRecord | None = None
        self.best_rank: tuple[bool, float] | None = None

    def take(self, records: "Sequence[TrialRecord]", changed: "TrialRecord") -> None:
        """Count a trial that changed, the only one since the last call; at the first call all."""
        is_first = not self.states
        for record in records if is_first else (changed,):
            if record.point.index in self.states:
                self.counts[self.states[record.point.index]] -= 1
            self.counts[record.state] += 1
            self.states[record.point.index] = record.state
        rank = self._rank(changed)
        if is_first or (changed is self.best and rank != self.best_rank):
            ranked = [(rank, each) for each in records if (rank := self._rank(each)) is not None]
            self.best_rank, self.best = max(ranked, key=lambda pair: pair[0], default=(None, None))
        elif rank is not None and (self.best_rank is None or rank > self.best_rank):
            self.best_rank, self.best = rank, changed

    def _rank(self, record: "TrialRecord") -> tuple[bool, float] | None:
        """References are held against, and best only where there is nothing else."""
        score = record.metrics.get(self.metric)
        return None if score is None else (not record.role.is_reference, score)


class Watch:
    """Keeps the board and the gauges up to date."""

    def __init__(self, name: str, num_trials: int, metric: str) -> None:
        self.name, self.num_trials, self.metric, self.started = name, num_trials, metric, time.time()
        actor: Any = Board  # an actor's class, by its decorator
        self.board = actor.options(name=f"{name}-{uuid.uuid4().hex[:8]}", namespace=NAMESPACE).remote()
        self.gauges = {
            key: Gauge(name, description=text, tag_keys=("sweep", "trial")) for key, (name, text) in GAUGES.items()
        }
        self.trials = Gauge("clray_trials", description="Trials by state.", tag_keys=("sweep", "state"))
        self.tally = Tally(metric)

    def update(self, records: "Sequence[TrialRecord]", changed: "TrialRecord") -> None:
        """Tell of a trial that changed, the only one since the last call, and of all."""
        self.tally.take(records, changed)
        best, counts = self.tally.best, {state: self.tally.counts[state] for state in STATES}
        counts["pending"] = self.num_trials - sum(counts[state] for state in STATES if state != "pending")
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
            board: Any = ray.get_actor(name, NAMESPACE)
            found.append(ray.get(board.read.remote(), timeout=READ_TIMEOUT_SECONDS))
        except (ValueError, ray.exceptions.RayError, TimeoutError):
            continue  # it ended meanwhile
    return sorted((each for each in found if each), key=lambda each: each["started"])
