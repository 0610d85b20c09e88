"""The metrics of a run, an epoch a line, in its folder."""

import logging
import math
from pathlib import Path
from typing import Any

from clray.errors import UserError
from clray.json_lines import append_line, read_lines, write_lines

METRICS_FILE = "metrics.jsonl"
Metrics = dict[str, float]
log = logging.getLogger(__name__)


def append_metrics(folder: Path, metrics: Metrics) -> None:
    """Add one line to the run's `metrics.jsonl`.

    Raises:
        UserError: it cannot be written, as on a full disk.
    """
    append_line(folder / METRICS_FILE, metrics)


def read_metrics(folder: Path) -> list[Metrics]:
    """The epochs in `metrics.jsonl`; a line that a kill cut short, or that is damaged, is left out."""
    lines = read_lines(folder / METRICS_FILE)
    found = [line for line in lines if line is not None and _is_epoch(line)]
    if len(found) < len(lines):
        log.warning("%s: %d damaged lines are left out", folder / METRICS_FILE, len(lines) - len(found))
    return found


def last_metrics(folder: Path) -> Metrics:
    """Those of the last epoch of a finished run.

    Raises:
        UserError: the file is lost or damaged.
    """
    metrics = read_metrics(folder)
    if not metrics:
        raise UserError(
            f"{folder / METRICS_FILE}: holds no epoch, though the run has been trained; restore the file, or remove "
            f"{folder} to train it again"
        )
    return metrics[-1]


def is_best(folder: Path, metric: str) -> bool:
    """Whether the last epoch in `metrics.jsonl` was evaluated and is better, by `metric`, than those before it."""
    scores = [metrics.get(metric, -math.inf) for metrics in read_metrics(folder)]
    return bool(scores) and scores[-1] > max(scores[:-1], default=-math.inf)


def best_epoch(folder: Path, metric: str) -> int:
    """The epoch of `best.pt`: the first that no other beats by `metric`; the last where none was evaluated."""
    history = read_metrics(folder)
    scored = [metrics for metrics in history if metric in metrics]
    chosen = max(scored, key=lambda metrics: metrics[metric]) if scored else history[-1]
    return int(chosen["epoch"])


def truncate_metrics(folder: Path, num_epochs: int) -> None:
    """Drop what was written after the checkpoint that the run continues from, so that no epoch stands twice."""
    path = folder / METRICS_FILE
    if path.exists():
        write_lines(path, [metrics for metrics in read_metrics(folder) if metrics["epoch"] <= num_epochs])


def _is_epoch(line: dict[str, Any]) -> bool:
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in line.values())
    return numbers and line.get("epoch", 0) >= 1
