"""A trial of a sweep as the driver sees it, and how it ended."""

import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from clray.config import Config
from clray.report.roles import Role, role_of
from clray.sweeps.search_space import SweepPoint
from clray.track.runs import RunLogger
from clray.training.metrics import Metrics

OUTCOME_FILE = "outcome.json"
OVER = ("finished", "pruned", "skipped")
"""States of trials that are not run again."""
log = logging.getLogger(__name__)


class _Outcome(BaseModel):
    """What of an outcome file is read back."""

    state: Literal["pending", "running", "finished", "pruned", "skipped", "failed", "stopped"]
    metrics: dict[str, int | float]
    reason: str | None
    changed: dict[str, Any]
    seconds: float


@dataclass
class TrialRecord:
    """What is known of a trial.

    Attributes:
        state: pending, running, finished, pruned (ended early by the scheduler), skipped (not worth training), failed,
            or stopped (interrupted).
        error: why it failed, in a line.
        reason: why it was pruned or skipped.
        changed: keys that population-based training has changed, with their values now.
        told: what a searcher is told once the trial is over; empty where it failed.
    """

    point: SweepPoint
    folder: Path
    state: str = "pending"
    metrics: Metrics = field(default_factory=dict)
    error: str | None = None
    reason: str | None = None
    changed: dict[str, Any] = field(default_factory=dict)
    told: dict[str, float] | None = None
    started_at: float | None = None
    seconds: float = 0.0
    mlflow: RunLogger | None = None

    @property
    def epoch(self) -> int:
        return int(self.metrics.get("epoch", 0))

    @property
    def role(self) -> Role:
        """Candidate or reference, by the clusters it trains with."""
        return role_of_config(self.point.config, self.metrics)

    @property
    def is_open(self) -> bool:
        return self.state in ("pending", "running", "stopped")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for `results.json` and for commands that print JSON."""
        return {
            "trial": self.point.name,
            "role": str(self.role),
            "state": self.state,
            "config": self.point.overrides,
            "metrics": self.metrics,
            "error": self.error,
            "reason": self.reason,
            "changed": self.changed,
            "seconds": round(self.seconds, 3),
            "folder": str(self.folder),
        }


def write_outcome(record: TrialRecord) -> None:
    """Keep in the trial's folder that it is over, so that a resumed sweep does not run it again."""
    record.folder.mkdir(parents=True, exist_ok=True)
    partial = record.folder / f"{OUTCOME_FILE}.partial"
    partial.write_text(json.dumps(record.as_dict()), encoding="utf-8")
    partial.replace(record.folder / OUTCOME_FILE)


def read_outcome(record: TrialRecord) -> None:
    """Take over how the trial ended before an interruption, where it did; one that failed is run again.

    So is one whose file is damaged: it continues from its checkpoint.
    """
    path = record.folder / OUTCOME_FILE
    if not path.exists():
        return
    try:
        kept = _Outcome.model_validate_json(path.read_bytes())
    except (ValueError, OSError) as error:
        log.warning("%s is damaged, and the trial is run again: %s", path, str(error).splitlines()[0])
        return
    if kept.state in OVER:
        record.state, record.reason = kept.state, kept.reason
        # The file may come from a storage: it changes the numbers that were searched, and nothing else.
        record.changed = {
            key: value
            for key, value in kept.changed.items()
            if key in record.point.overrides and isinstance(value, int | float)
        }
        record.metrics, record.seconds = kept.metrics, kept.seconds


def role_of_config(config: Config, metrics: Metrics) -> Role:
    """Candidate or reference; the metrics of given clusters tell where they are the labels."""
    return role_of({"objective.name": config.objective.name, "clusters.source": config.clusters.source}, metrics)


def trial_folder(sweep_folder: Path, point: SweepPoint) -> Path:
    """Where a trial keeps its metrics and checkpoint."""
    return sweep_folder / "trials" / f"{point.index:04d}"


def storage_name(folder: Path) -> str:
    """A trial's folder as it is called in a storage: SWEEP/trials/NUMBER, as below the output folder."""
    return str(folder.relative_to(folder.parents[2]))


def rank_records(records: list[TrialRecord], config: Config) -> list[TrialRecord]:
    """Trials with the sweep's metric, best first, then those without it; equal ones in the order of their numbers."""
    return sorted(records, key=lambda record: -round(record.metrics.get(config.sweep.metric, -math.inf), 9))
