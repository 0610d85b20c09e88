"""One trial of a sweep, in the process that Ray Tune gives it.

A trial that needs one worker trains here, in a process which the next trial takes over; a trial that needs several
launches a worker group.
"""

import json
import logging
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray import tune

from clray.config import Config, override
from clray.data.samples import Dataset
from clray.redaction import hide_credentials
from clray.sweeps.searchers import COST
from clray.sweeps.trials import storage_name
from clray.training.accuracy import evaluate_untrained
from clray.training.checkpoint_parts import CHECKPOINT_FILE
from clray.training.first_clusterings import Wanted
from clray.training.metrics import Metrics, last_metrics, read_metrics
from clray.training.start import Start, StartClusters, clusters_key, start_clusters
from clray.training.storage import Storage, storage_of
from clray.training.trunk import Trunk, is_fresh
from clray.training.workers.failing import error_line
from clray.training.workers.gpus import with_gpus
from clray.training.workers.launch import launch

ERROR_FILE = "error.txt"
DONE_FILE = "done"
UNTRAINED_FILE = "untrained.json"
COST_METRICS = ("train/seconds", "recluster/seconds", "eval/seconds")
log = logging.getLogger(__name__)


def train_trial(
    parameters: dict[str, Any],
    *,
    config: Config,
    folder: Path,
    data: list[Any],
    clusters: list[Any],
    service: Any | None,
    trunks: dict[int, Trunk],
    num_gpus: float = 0.0,
    first: int = 0,
) -> None:
    """Train one point of the sweep, from where it was interrupted, and report each epoch to Tune.

    Args:
        parameters: what the search space chose, and the number of the `point`.
        config: of the sweep, without its search space.
        folder: of the sweep.
        data: the reference of the data set, in a list so that it travels as one.
        clusters: the same for `StartClusters`.
        service: the k-means service, where clusters come from there.
        trunks: the epochs that trials share, by the number of each.
        num_gpus: that the trials may take together.
        first: the number of the trial that measures the untrained encoder.
    """
    index = parameters["point"]
    overrides = {key: value for key, value in parameters.items() if key != "point"}
    if config.sweep.scheduler == "pbt":
        overrides["train.checkpoint_every_epochs"] = 1  # each may be handed to another trial
    asked = override(config, overrides)
    config = with_gpus(asked, num_gpus)
    folder = folder / "trials" / f"{index:04d}"
    storage = storage_of(config, storage_name(folder))
    if storage is not None and not folder.exists():
        storage.download(folder, checkpoints=False)
    if (folder / DONE_FILE).exists():
        _report_again(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ERROR_FILE).unlink(missing_ok=True)
    try:
        is_common = not any(key.startswith(("encoder.", "data.", "evaluate.")) for key in overrides)
        if index == first and is_common and config.train.num_workers == 1:
            _measure_untrained(config, folder, ray.get(data[0]))
        trunk, start = trunks.get(index), _start(config, clusters)
        if trunk is not None and is_fresh(folder):
            _start_from(trunk, asked, num_gpus, folder, data, start, service)
        if trunk is not None and config.clusters.source == "kmeans":
            start = replace(
                start or Start(start_clusters(config, ray.get(data[0]))), first=trunk.first_clustering(config)
            )
        num_known = len(read_metrics(folder))
        _train(config, asked, folder, data, start, service, storage)
        if len(read_metrics(folder)) == num_known:  # it was killed after its last epoch
            _draw(folder, config, ray.get(data[0]))
            _report_again(folder)
        (folder / DONE_FILE).touch()
    except Exception as error:
        # The driver shows this line; Tune's own account of the error reaches its callbacks too late.
        (folder / ERROR_FILE).write_text(hide_credentials(error_line(error)), encoding="utf-8")
        raise


def read_untrained(sweep_folder: Path) -> Metrics:
    """What the encoder was worth before any training; empty where it was not measured, or the file is damaged."""
    try:
        found = json.loads((sweep_folder / UNTRAINED_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    is_whole = isinstance(found, dict) and all(isinstance(value, int | float) for value in found.values())
    return found if is_whole else {}


def _measure_untrained(config: Config, folder: Path, data: Dataset) -> None:
    """The floor of the sweep, measured once, by its first trial; a trial is not lost over it."""
    if read_untrained(folder.parents[1]):
        return
    path = folder.parents[1] / UNTRAINED_FILE
    try:
        metrics = evaluate_untrained(config, data)
        partial = path.with_name(f"{path.name}.partial")
        partial.write_text(json.dumps(metrics), encoding="utf-8")
        partial.replace(path)
    except Exception as error:
        log.warning("the untrained encoder was not evaluated: %s", error)


def _report_again(folder: Path) -> None:
    """Tell Tune, which has not heard of it, what a trial with nothing left to train came to."""
    tune.report({**last_metrics(folder), COST: _cost_seconds(folder)})


def _start_from(
    trunk: Trunk,
    config: Config,
    num_gpus: float,
    folder: Path,
    data: list[Any],
    start: Start | None,
    service: Any | None,
) -> None:
    """Put the epochs that trials share into this one's folder, trained by the first that comes; tell Tune of them."""
    told = 0

    def train(own: Config, growing: Path, wanted: tuple[Wanted, ...]) -> None:
        def on_report(metrics: Metrics) -> None:
            nonlocal told
            told = int(metrics["epoch"])
            tune.report({**metrics, COST: _cost_seconds(growing)})

        launch(
            with_gpus(own, num_gpus), ray.get(data[0]), growing, start, asked=own, service=service,
            on_report=on_report, reference=data[0], wanted=wanted,
        )  # fmt: skip

    trunk.grow(config, folder.name, train)
    if not trunk.start(folder):
        return
    cost = 0.0
    for metrics in read_metrics(folder):
        cost += sum(metrics.get(name, 0.0) for name in COST_METRICS)
        if metrics["epoch"] > told:
            tune.report({**metrics, COST: cost})


def _start(config: Config, clusters: list[Any]) -> Start | None:
    """What the driver has built for the trial; None where a searcher made it up since."""
    known: StartClusters = ray.get(clusters[0])
    found = known.get(clusters_key(config))
    return None if found is None else Start(found)


def _train(
    config: Config,
    asked: Config,
    folder: Path,
    data: list[Any],
    start: Start | None,
    service: Any | None,
    storage: Storage | None,
) -> None:
    images = ray.get(data[0])
    changes_while_running = config.sweep.scheduler == "pbt"
    if changes_while_running:
        _take_over_checkpoint(folder)

    def on_report(metrics: Metrics) -> None:
        if metrics["epoch"] == config.train.num_epochs:
            _draw(folder, config, images)
        metrics = {**metrics, COST: _cost_seconds(folder)}
        if not changes_while_running:
            tune.report(metrics)
            return
        with tempfile.TemporaryDirectory() as kept:
            shutil.copyfile(folder / CHECKPOINT_FILE, Path(kept) / CHECKPOINT_FILE)
            tune.report(metrics, checkpoint=tune.Checkpoint.from_directory(kept))

    launch(
        config, images, folder, start, asked=asked, service=service, on_report=on_report, storage=storage,
        reference=data[0],
    )  # fmt: skip


def _draw(folder: Path, config: Config, data: Dataset) -> None:
    if config.tracking.pictures != "none":
        from clray.report.pictures import try_to_draw  # with Matplotlib, which nothing else here needs

        try_to_draw(folder, config, data)


def _take_over_checkpoint(folder: Path) -> None:
    """Resume from the checkpoint that the scheduler chose, which may be another trial's."""
    checkpoint = tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as chosen:
            shutil.copyfile(Path(chosen) / CHECKPOINT_FILE, folder / CHECKPOINT_FILE)


def _cost_seconds(folder: Path) -> float:
    """What the trial has cost so far, also before an interruption."""
    return sum(metrics.get(name, 0.0) for metrics in read_metrics(folder) for name in COST_METRICS)
