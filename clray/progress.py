"""What a run or sweep tells while it goes, and how a terminal or a notebook shows it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from clray.console import PlainConsole

if TYPE_CHECKING:
    from clray.config import Config
    from clray.sweeps.trials import TrialRecord


class Observer:
    """Hears of a run or sweep; a subclass does something about it. Every method may do nothing.

    What a method raises ends the run or sweep as failed.

    Example:
        >>> class Losses(clray.Observer):
        ...     def epoch(self, metrics):
        ...         print(metrics["train/loss"])
        >>> clray.train(config, observer=Losses())
    """

    @contextmanager
    def preparing(self, _text: str) -> Iterator[None]:
        """Around work that shows no steps, such as reading the data."""
        yield

    @contextmanager
    def training(self, _config: "Config", _num_trials: int | None) -> Iterator[None]:
        """Around the training of a run (`num_trials` is None) or of a sweep."""
        yield

    def chosen(self, folder: Path) -> None:
        """Hear which folder will hold the results, before it is made."""

    def opened(self, folder: Path) -> None:
        """Hear that the folder holds a run that can be resumed from now on."""

    def lost(self, reason: str) -> None:
        """Hear that the head of the Ray cluster is lost, and with it the work; what is recorded has been closed."""

    def note(self, message: str) -> None:
        """Hear something that should be known and stops nothing; also from another thread."""

    def kept_back(self, num_entries: int, folder: Path, _uri: str) -> None:
        """Hear that the MLflow store at the address has not got all entries; the folder keeps them."""
        self.note(
            f"the MLflow store cannot be reached: {num_entries} entries are kept in {folder}. Upload them once it "
            "answers again"
        )

    def step(self, step: int, steps_per_epoch: int) -> None:
        """Hear of the step of a run that begins, from 0."""

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """Hear of the metrics of an epoch of a run that ended."""

    def update(self, record: "TrialRecord") -> None:
        """Hear of a trial whose state or metrics changed."""


class ConsoleObserver(Observer):
    """Shows a bar for a run and a live table for a sweep."""

    def __init__(self, console: PlainConsole, *, quiet: bool = False) -> None:
        """Args: `quiet` shows nothing but notes."""
        self.console, self.quiet = console, quiet
        self._run: RunProgress | None = None
        self._trials: Callable[[TrialRecord], None] | None = None

    @contextmanager
    def preparing(self, text: str) -> Iterator[None]:
        if self.quiet or not self.console.is_terminal:
            yield
            return
        with self.console.status(text):
            yield

    @contextmanager
    def training(self, config: "Config", num_trials: int | None) -> Iterator[None]:
        if num_trials is None:
            with run_progress(self.console, config.train.num_epochs, quiet=self.quiet) as self._run:
                yield
            return
        from clray.sweeps.display import LiveTable

        with LiveTable(self.console, config, num_trials) as table:
            self._trials = table.update
            yield

    def note(self, message: str) -> None:
        self.console.print("note:", style="yellow", end=" ")
        self.console.print(message, soft_wrap=True)

    def step(self, step: int, steps_per_epoch: int) -> None:
        if self._run is not None:
            self._run.step(step, steps_per_epoch)

    def epoch(self, metrics: Mapping[str, float]) -> None:
        if self._run is not None:
            self._run.epoch(metrics)

    def update(self, record: "TrialRecord") -> None:
        if self._trials is not None:
            self._trials(record)


@contextmanager
def progress_bar(
    console: PlainConsole, noun: str, total: int | None, *, quiet: bool = False
) -> Iterator[Callable[[float, str], None]]:
    """A progress bar; yields a function of (completed, description).

    Args:
        total: what is to be completed; None for a share from 0 to 1, of which the description gives the counts.
    """
    counts = "{task.description}" if total is None else "{task.completed:.4g}/{task.total} {task.description}"
    columns = (
        TextColumn(noun),
        BarColumn(),
        TextColumn(counts, markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=quiet) as bar:
        task = bar.add_task("", total=1 if total is None else total)
        yield lambda completed, text: bar.update(task, completed=completed, description=text)


class RunProgress:
    """Moves a progress bar with a run's steps, and says what its last epoch measured."""

    def __init__(self, show: Callable[[float, str], None]) -> None:
        self.show, self.measured = show, ""

    def step(self, step: int, steps_per_epoch: int) -> None:
        """Hear of a step of the run that begins."""
        self.show(step / steps_per_epoch, f"step {step % steps_per_epoch + 1}/{steps_per_epoch} {self.measured}")

    def epoch(self, metrics: Mapping[str, float]) -> None:
        """Hear of the metrics of an epoch that ended."""
        self.measured = f"loss {metrics['train/loss']:.3f}, {metrics['train/samples_per_second']:.0f} images/s"
        if "recluster/inertia" in metrics:
            self.measured += f", clusters {metrics['recluster/age_epochs']:.1f} epochs old"
        if "eval/linear_accuracy" in metrics:
            self.measured += f", linear {100 * metrics['eval/linear_accuracy']:.1f} %"
        elif "eval/linear_mean_average_precision" in metrics:
            self.measured += f", linear mAP {100 * metrics['eval/linear_mean_average_precision']:.1f} %"
        if "train/num_workers" in metrics:
            self.measured += f", {metrics['train/num_workers']:.0f} workers"
        self.show(metrics["epoch"], self.measured)


@contextmanager
def run_progress(console: PlainConsole, num_epochs: int, *, quiet: bool = False) -> Iterator[RunProgress]:
    """A progress bar over epochs and steps."""
    with progress_bar(console, "epoch", num_epochs, quiet=quiet) as show:
        yield RunProgress(show)
