"""What a sweep would do: its trials, what each asks of the cluster, and how long it may take, judged by timed steps."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from clray.config import Config
from clray.data.loaders import fewest_steps
from clray.data.samples import Dataset
from clray.ray_runtime.room import Group
from clray.sweeps.search_space import SweepPlan, SweepPoint
from clray.sweeps.trunks import describe_trunks, find_trunks
from clray.training.timing import time_steps
from clray.training.trunk import Trunk
from clray.training.workers.resources import worker_group

MAX_ROWS = 50


@dataclass(frozen=True)
class Estimate:
    """Of a whole sweep.

    Attributes:
        step_seconds: of a training step, timed here for each kind of trial, with the cores a worker has.
        seconds: wall time of all trials, without evaluation, reclustering and early stopping.
        workers: of each trial that the table shows.
        shared: which epochs trials share, in sentences.
    """

    num_trials: int
    num_at_once: int
    num_steps: int
    step_seconds: float
    seconds: float
    workers: tuple[Group, ...] = ()
    shared: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if name != "workers"}

    @property
    def sentence(self) -> str:
        minutes, seconds = divmod(round(self.seconds), 60)
        shown = f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
        total = (
            f"{self.num_trials} trials, {self.num_at_once} at once: about {shown} of training steps "
            f"({1000 * self.step_seconds:.0f} ms each); evaluation and clustering add to it, early stopping shortens it"
        )
        return "; ".join([*self.shared, total])


def estimate(
    config: Config, plan: SweepPlan, data: Dataset, num_at_once: int, num_gpus: float = 0.0
) -> Estimate:  # fmt: skip
    """Time a step of each kind of trial: kinds differ in what changes the work of a step.

    Args:
        num_gpus: that the trials may take together.
    """
    torch.set_num_threads(max(1, int(plan.samples[0].config.train.cpus_per_worker)))
    timed: dict[str, float] = {}
    steps, seconds = 0, 0.0
    start = time.monotonic()
    trunks, grown = find_trunks(config, plan.points, Path()), set[Trunk]()
    for point in plan.samples:
        kind = _kind(point)
        if kind not in timed:
            # Of many kinds, those that come late are taken for the mean of the others.
            late = timed and time.monotonic() - start > 60
            timed[kind] = sum(timed.values()) / len(timed) if late else time_steps(point.config, data)
        train = point.config.train
        trunk, num_epochs = trunks.get(point.index), train.num_epochs
        if trunk is not None and trunk in grown:
            num_epochs -= trunk.num_epochs
        elif trunk is not None:
            grown.add(trunk)
        count = num_epochs * fewest_steps(data.train, train.group_sizes, min(train.global_batch_size, len(data.train)))
        steps, seconds = steps + count, seconds + count * timed[kind]
    scale = plan.num_trials / len(plan.samples)
    return Estimate(
        num_trials=plan.num_trials,
        num_at_once=num_at_once,
        num_steps=round(scale * steps),
        step_seconds=seconds / steps,
        seconds=scale * seconds / min(num_at_once, plan.num_trials),
        workers=tuple(worker_group(point.config, data, num_gpus=num_gpus) for point in plan.samples[:MAX_ROWS]),
        shared=tuple(describe_trunks(plan.points, trunks)),
    )


def trial_table(plan: SweepPlan, found: Estimate) -> Table:
    """The trials, or for a searcher the ends of what it will suggest."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("trial" if plan.points else "from, to", "epochs", "CPUs", "GPUs"):
        table.add_column(heading, justify="left" if heading != "epochs" else "right")
    for point, workers in zip(plan.samples[:MAX_ROWS], found.workers, strict=True):
        table.add_row(point.name, str(point.config.train.num_epochs), f"{workers.cpus:g}", f"{workers.gpus:g}")
    if len(plan.samples) > MAX_ROWS:
        table.add_row(f"... and {found.num_trials - MAX_ROWS} more", "", "", "")
    return table


def _kind(point: SweepPoint) -> str:
    """Points of one kind take equally long for a step."""
    train, config, views = point.config.train, point.config, point.config.augmentation
    same = {"objective": {"temperature", "base_temperature"}}
    parts = (config.encoder, config.head, config.data, train.global_batch_size, train.num_workers, train.precision)
    sizes = (views.name, views.view_size, views.small_views, views.small_view_size)
    return repr((*parts, sizes, config.objective.model_dump(exclude=same["objective"])))
