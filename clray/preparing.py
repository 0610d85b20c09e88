"""What runs, sweeps and their forecasts begin with: who hears of them, the folder, the data and the points.

Nothing here writes; what can be refused is refused.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from clray.config import Config
from clray.config.plain import shown
from clray.config.source import Source
from clray.errors import UserError
from clray.progress import ConsoleObserver, Observer

if TYPE_CHECKING:
    from clray.data.samples import Dataset
    from clray.sweeps.search_space import SweepPlan
    from clray.training.start import StartClusters


def observer_of(given: Observer | None, progress: bool) -> Observer:
    if given is not None:
        if not isinstance(given, Observer):
            raise UserError(f"observer: expected an object of a subclass of clray.Observer; got {shown(given)}")
        return given
    if not progress:
        return Observer()
    from clray.console import PlainConsole

    return ConsoleObserver(PlainConsole(stderr=True))


def choose_folder(config: Config, source: Source, name: str | None, resume: bool, observer: Observer) -> Path:
    from clray.training.folder import claim_folder

    stem = Path(source).stem if isinstance(source, str | Path) else "run"
    folder = claim_folder(config, stem, name, resume)
    observer.chosen(folder)
    return folder


def load_data(config: Config, observer: Observer) -> "Dataset":
    """The data set, once the places that the config names have been looked at."""
    from clray.data.load import check_files
    from clray.data.parts import load_parts
    from clray.track.mlflow import check_server, store_uri

    if config.evaluate.ignored:
        keys = " and ".join(config.evaluate.ignored)
        observer.note(f"{keys}: ignored, as the linear probe is solved to its optimum; leave it out")
    check_server(store_uri(config.tracking, Path(config.output)))
    check_files(config.data)
    data = load_parts(config.data, config.evaluate.targets)
    if data.skipped:
        observer.note(f"left out {len(data.skipped)} bad images, the first: {data.skipped[0]}")
    for note in data.notes:
        observer.note(note)
    return data


def with_metric_told(config: Config, data: "Dataset", observer: Observer) -> Config:
    from clray.training.headline import metric_note, with_metric

    settled = with_metric(config, data)
    note = metric_note(settled)
    if note is not None:
        observer.note(note)
    return settled


def prepare_sweep(
    config: Config, source: Source, name: str | None, resume: bool, observer: Observer
) -> "tuple[SweepPlan, Path, Dataset, StartClusters]":
    from clray.sweeps.search_space import plan_sweep

    plan = plan_sweep(config)
    folder = choose_folder(config, source, name, resume, observer)
    data = load_data(config, observer)
    from clray.sweeps.check import check_points
    from clray.sweeps.coincidence import without_coincident

    clusters, notes = check_points(plan.samples, data)
    plan, left_out = without_coincident(plan, clusters)
    for note in (*notes, *left_out):
        observer.note(note)
    return plan, folder, data, clusters
