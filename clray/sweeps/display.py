"""The trials of a sweep on a terminal: a live table while they run, one line each where there is no terminal."""

import time
from collections.abc import Sequence

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from clray.config import Config
from clray.console import PlainConsole, as_shown
from clray.report.measures import measure_of
from clray.report.summary import metric_name
from clray.sweeps.trials import TrialRecord, rank_records

MAX_ROWS = 24
STATE_STYLES = {
    "running": "cyan", "finished": "green", "pruned": "blue", "skipped": "blue", "failed": "red", "stopped": "yellow",
    "pending": "dim",
}  # fmt: skip
RESULTS = {
    "linear": "eval/linear_accuracy",
    "k-NN": "eval/knn_accuracy",
    "test": "test/linear_accuracy",
    "I(Z;T)": "clusters/mutual_information_bits",
    "I adj.": "clusters/adjusted_mutual_information_bits",
    "H(Z|T)": "clusters/conditional_entropy_bits",
}
"""What the table of labelled data tells of a trial, by heading."""
OVER = ("finished", "pruned", "skipped", "failed")


class LiveTable:
    """Context manager that follows trial records."""

    def __init__(self, console: PlainConsole, config: Config, num_trials: int) -> None:
        self.console = console
        self.config = config
        self.num_trials = num_trials
        self.records: dict[int, TrialRecord] = {}
        self.printed: dict[int, str] = {}
        self.started, self.epochs_before = time.monotonic(), 0
        # Drawn at its own pace, however often a trial changes: to rank and count 10,000 takes 30 ms.
        pace = min(4.0, 4000 / max(num_trials, 1))
        self.live: Live | None = None
        if console.is_terminal:
            self.live = Live(console=console, get_renderable=self._render, refresh_per_second=pace, transient=True)

    def __enter__(self) -> "LiveTable":
        self.started = time.monotonic()
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def update(self, record: TrialRecord) -> None:
        if record.point.index not in self.records:
            self.epochs_before += record.epoch  # of a trial that was over or under way before a resumption
        self.records[record.point.index] = record
        if self.live is None and record.state in (*OVER, "stopped"):
            outcome = _outcome(record, self.config)
            # Both the prescreen and the sweep tell what was left out.
            if self.printed.get(record.point.index) != outcome:
                self.printed[record.point.index] = outcome
                line = f"[{len(self.printed)}/{self.num_trials}] {record.point.name}: {outcome}"
                self.console.print(line, soft_wrap=True)

    def _render(self) -> Group:
        figures = figures_of(self.config.sweep.metric)
        table = _table(("trial", "state", "epochs"), ("loss", *figures))
        order = {"running": 0, "failed": 1, "stopped": 1, "finished": 2, "pruned": 2, "skipped": 2}
        records = sorted(rank_records(list(self.records.values()), self.config), key=lambda r: order.get(r.state, 3))
        for record in records[:MAX_ROWS]:
            metrics = record.metrics
            table.add_row(
                record.point.name,
                Text(record.state, STATE_STYLES[record.state]),
                ProgressBar(record.point.config.train.num_epochs, record.epoch, width=16),
                _number(metrics, "train/loss", 3),
                *(_shown(metrics, name) for name in figures.values()),
            )
        done = sum(record.state in OVER for record in records)
        hidden = f", {len(records) - MAX_ROWS} not shown" if len(records) > MAX_ROWS else ""
        left = seconds_left(records, self.num_trials, self.epochs_before, time.monotonic() - self.started)
        about = "" if left is None else f", about {_duration(left)} left"
        return Group(table, Text(f"{done} of {self.num_trials} trials done{about}{hidden}", "dim"))


def figures_of(metric: str) -> dict[str, str]:
    """What the live table tells of a trial, by heading: of labelled data accuracy and information."""
    if metric in ("eval/linear_accuracy", "eval/knn_accuracy"):
        bits = {"I(Z;T)": "clusters/mutual_information_bits", "H(Z|T)": "clusters/conditional_entropy_bits"}
        return {"linear": "eval/linear_accuracy", **bits}
    return {metric_name(metric): metric, "H(Z)": "clusters/entropy_bits", "imbalance": "clusters/imbalance_factor"}


def seconds_left(
    records: Sequence[TrialRecord], num_trials: int, epochs_before: int, seconds: float
) -> float | None:  # fmt: skip
    """How long a sweep still takes at the pace of its epochs so far; None before the first epoch has ended.

    Args:
        epochs_before: what the trials had trained before, in an earlier run of the sweep.
        seconds: since the sweep began or was resumed.
    """
    if not records:
        return None
    done = sum(record.epoch for record in records) - epochs_before
    totals = [record.point.config.train.num_epochs for record in records]
    open_epochs: float = sum(
        total - record.epoch for record, total in zip(records, totals, strict=True) if record.is_open
    )  # fmt: skip
    open_epochs += (num_trials - len(records)) * sum(totals) / len(totals)
    return None if done <= 0 else seconds * open_epochs / done


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{max(1, round(seconds))} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def result_table(records: Sequence[TrialRecord], metric: str = RESULTS["linear"], limit: int = MAX_ROWS) -> Table:
    """Finished and failed trials in the order given; references are named as such."""
    figures = RESULTS if metric in RESULTS.values() else figures_of(metric)
    table = _table(("", "trial"), (*figures, "seconds"), ("",))
    table.columns[0].justify = "right"
    for rank, record in enumerate(records[:limit], start=1):
        metrics, role = record.metrics, str(record.role) if record.role.is_reference else ""
        table.add_row(
            str(rank),
            record.point.name,
            *(_shown(metrics, name) for name in figures.values()),
            f"{record.seconds:.1f}" if record.state == "finished" else Text(record.state, STATE_STYLES[record.state]),
            Text(as_shown(record.error or record.reason or role), "dim"),
        )
    return table


def _table(names: Sequence[str], figures: Sequence[str], notes: Sequence[str] = ()) -> Table:
    """A table without rules; its figures stand at the right of their columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in names:
        table.add_column(heading)
    for heading in figures:
        table.add_column(heading, justify="right")
    for heading in notes:
        table.add_column(heading)
    return table


def _outcome(record: TrialRecord, config: Config) -> str:
    if record.error is not None:
        return f"failed: {record.error}"
    value = record.metrics.get(config.sweep.metric)
    outcome = record.reason or record.state
    if value is None:
        return outcome
    measured = f"{config.sweep.metric} {value:.4f} after {record.seconds:.1f} s"
    return measured if record.reason is None else f"{measured}, {outcome}"


def _number(metrics: dict[str, float], name: str, digits: int) -> str:
    return f"{round(metrics[name], digits) + 0.0:.{digits}f}" if name in metrics else ""


def _shown(metrics: dict[str, float], name: str) -> str:
    measure = measure_of(name)
    scaled = {each: measure.scale * value for each, value in metrics.items() if each == name}
    return _number(scaled, name, measure.digits)
