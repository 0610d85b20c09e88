"""The trials of a sweep as the driver sees them, and what they leave behind: results.json and the picture."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clray.clusters.statistics import entropy_bits
from clray.config import Config
from clray.data.datasets import Dataset
from clray.sweep.search_space import SweepPoint, split_name
from clray.track.information_plane import Point, draw_information_plane
from clray.track.mlflow import RunLogger
from clray.train.session import Metrics, read_metrics

RESULTS_FILE = "results.json"
PICTURE_FILE = "information_plane.png"


@dataclass
class TrialRecord:
    """What is known of a trial: `state` is pending, running, finished, failed or stopped."""

    point: SweepPoint
    folder: Path
    state: str = "pending"
    metrics: Metrics = field(default_factory=dict)
    error: str | None = None
    started_at: float | None = None
    seconds: float = 0.0
    mlflow: RunLogger | None = None

    @property
    def epoch(self) -> int:
        return int(self.metrics.get("epoch", 0))

    @property
    def is_open(self) -> bool:
        return self.state in ("pending", "running", "stopped")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for `results.json` and `--json`."""
        return {
            "trial": self.point.name,
            "state": self.state,
            "config": self.point.overrides,
            "metrics": self.metrics,
            "error": self.error,
            "seconds": round(self.seconds, 3),
            "folder": str(self.folder),
        }


def trial_folder(sweep_folder: Path, point: SweepPoint) -> Path:
    """Where a trial keeps its metrics and checkpoint."""
    return sweep_folder / "trials" / f"{point.index:04d}"


def rank_records(records: list[TrialRecord], config: Config) -> list[TrialRecord]:
    """Trials with the sweep's metric, best first, then those without it."""
    return sorted(records, key=lambda record: -record.metrics.get(config.sweep.metric, -math.inf))


def write_results(ranked: list[TrialRecord], folder: Path, timing: dict[str, float]) -> Path:
    """`results.json`: the trials in the order given, and where the time went, in seconds summed over trials."""
    names = ("train/seconds", "recluster/seconds", "eval/seconds")
    sums = dict.fromkeys(names, 0.0)
    for record in ranked:
        for metrics in read_metrics(record.folder):
            for name in names:
                sums[name] += metrics.get(name, 0.0)
    path = folder / RESULTS_FILE
    tree = {"trials": [record.as_dict() for record in ranked], "timing": {**timing, **sums}}
    path.write_text(json.dumps(tree, indent=2), encoding="utf-8")
    return path


def draw_picture(ranked: list[TrialRecord], data: Dataset, config: Config, folder: Path) -> Path | None:
    """`information_plane.png` of the trials that have the sweep's metric; None where there is none."""
    points = [_as_point(record, config.sweep.metric) for record in ranked if config.sweep.metric in record.metrics]
    if not points:
        return None
    return draw_information_plane(
        points,
        folder / PICTURE_FILE,
        label_entropy_bits=entropy_bits(data.train.labels),
        instance_entropy_bits=math.log2(len(data.train)),
        title=f"What clusters were worth: {folder.name}",
        metric=config.sweep.metric.removeprefix("eval/").replace("_", " "),
    )


def _as_point(record: TrialRecord, metric: str) -> Point:
    metrics = record.metrics
    label, group = split_name(record.point)
    return Point(
        metrics["clusters/mutual_information_bits"],
        metrics["clusters/conditional_entropy_bits"],
        metrics[metric],
        label,
        group,
    )
