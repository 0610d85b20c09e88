"""A sweep: its points as trials of Ray Tune, reported to a display and to MLflow.

A trial that needs one worker trains inside Tune's own trial process, which the next trial takes over; a trial that
needs several launches a worker group.
"""

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial

from clray.config import Config, UserError
from clray.data.datasets import Dataset
from clray.kmeans.actors import shard_resources
from clray.ray_cluster import require_resources, start_ray
from clray.sweep.search_space import SweepPoint
from clray.sweep.trials import TrialRecord, trial_folder
from clray.track.mlflow import RunLogger, Store
from clray.train.health import warn_of_collapse
from clray.train.launch import error_line, start_service, train_in_group, train_in_process
from clray.train.resources import required_resources
from clray.train.run import check_against_data
from clray.train.session import read_metrics

ERROR_FILE = "error.txt"
DONE_FILE = "done"
log = logging.getLogger(__name__)


class Display(Protocol):
    """Shows the trials while they run."""

    def update(self, record: TrialRecord) -> None: ...


SHARED_KEYS = ("kmeans.num_shards", "kmeans.cpus_per_shard", "kmeans.gpus_per_shard")


def check_points(points: list[SweepPoint], data: Dataset) -> None:
    """Raise UserError naming the first trial that cannot be run on these data."""
    for point in points:
        for key in SHARED_KEYS:
            if key in point.overrides:
                raise UserError(f"search_space.{key}: the shards serve all trials of a sweep; set it outside")
        try:
            check_against_data(point.config, data)
        except UserError as error:
            raise UserError(f"trial {point.name}: {error}") from None


def start_for_sweep(config: Config, points: list[SweepPoint], *, verbose: bool) -> None:
    """Ray, with room for the largest trial beside the k-means shards.

    Raises:
        UserError: the cluster does not answer, or a trial needs more than all of it.
    """
    needed, pool = _largest(points), _pool(config, points)
    # The cleaner that frees the placement groups of worker groups asks the dashboard's State API.
    is_group = any(point.config.train.num_workers > 1 for point in points)
    start_ray(needed_cpus=needed["CPU"] + pool["CPU"], dashboard=is_group, verbose=verbose)
    require_resources({name: needed[name] + pool[name] for name in needed}, "one trial and the k-means shards")


def _largest(points: list[SweepPoint]) -> dict[str, float]:
    """The most that any trial's workers need of each resource."""
    each = [required_resources(point.config) for point in points]
    return {name: max(needed[name] for needed in each) for name in each[0]}


def _pool(config: Config, points: list[SweepPoint]) -> dict[str, float]:
    """What the k-means shards take for the whole sweep."""
    if not any(point.config.clusters.source == "kmeans" for point in points):
        return {"CPU": 0.0, "GPU": 0.0}
    return shard_resources(config.kmeans)


def run_sweep(
    config: Config, points: list[SweepPoint], data: Dataset, folder: Path, store: Store, display: Display
) -> tuple[list[TrialRecord], RunLogger]:
    """Run every point; a failing trial does not end the sweep.

    Trials whose folder holds results or a checkpoint go on from there, so a sweep that was interrupted is resumed by
    running it again. `start_for_sweep` comes first. Returns the trials and the open MLflow run of the sweep.
    """
    needed, pool = _largest(points), _pool(config, points)
    has_shards = any(point.config.clusters.source == "kmeans" for point in points)
    service = start_service(config.kmeans) if has_shards else None
    records = [TrialRecord(point, trial_folder(folder, point)) for point in points]
    callback = _Reporter(records, folder, store, config, display)
    # A worker group's workers are not reserved by Tune: the trial itself takes next to nothing, and the number of
    # trials at once is bounded by what the workers need.
    is_group = any(point.config.train.num_workers > 1 for point in points)
    per_trial = {"CPU": 0.01} if is_group else {name: amount for name, amount in needed.items() if amount > 0}
    trainable = tune.with_parameters(
        _train_trial, configs=[point.config for point in points], folders=[r.folder for r in records],
        data=[ray.put(data)], service=service,
    )  # fmt: skip
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its banner ignores verbose=0
    tuner = tune.Tuner(
        tune.with_resources(trainable, per_trial),
        param_space={"point": tune.grid_search([point.index for point in points])},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=_concurrency(config, needed, pool), reuse_actors=not is_group
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(folder.resolve()), callbacks=[callback], verbose=0
        ),
    )  # fmt: skip
    try:
        tuner.fit()
    finally:
        callback.close()
        # Tune's own state; a sweep is resumed from the folders of its trials.
        shutil.rmtree(folder / "tune", ignore_errors=True)
    return records, callback.parent


def _concurrency(config: Config, needed: dict[str, float], pool: dict[str, float]) -> int:
    """Trials at once: what the cluster has, less the k-means shards, divided by what a trial needs."""
    total = ray.cluster_resources()
    fits = [int((total.get(name, 0.0) - pool[name] + 1e-6) / amount) for name, amount in needed.items() if amount > 0]
    limit = max(1, min(fits))
    return min(limit, config.sweep.max_concurrent_trials or limit)


def _train_trial(
    parameters: dict[str, Any], *, configs: list[Config], folders: list[Path], data: list[Any], service: Any | None
) -> None:
    config, folder = configs[parameters["point"]], folders[parameters["point"]]
    if (folder / DONE_FILE).exists():
        tune.report(read_metrics(folder)[-1])
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ERROR_FILE).unlink(missing_ok=True)
    try:
        _train(config, folder, data, service)
        (folder / DONE_FILE).touch()
    except Exception as error:
        # The driver shows this line; Tune's own account of the error reaches its callbacks too late.
        (folder / ERROR_FILE).write_text(error_line(error), encoding="utf-8")
        raise


def _train(config: Config, folder: Path, data: list[Any], service: Any | None) -> None:
    if config.train.num_workers == 1:
        train_in_process(config, ray.get(data[0]), folder, tune.report, service)
        return
    from ray.tune.integration.ray_train import TuneReportCallback

    train_in_group(config, data[0], folder, service=service, callbacks=(TuneReportCallback(),))


class _Reporter(Callback):
    """Tune's events to the records, the display and MLflow, all in the driver: trials never import MLflow."""

    def __init__(
        self, records: list[TrialRecord], folder: Path, store: Store, config: Config, display: Display
    ) -> None:
        self.records = records
        self.store = store
        self.display = display
        self.folder = folder
        self.parent = store.start_run(kind="sweep", run_id=folder.name, name=folder.name, config=config)

    def __getstate__(self) -> dict[str, Any]:
        # Tune saves its callbacks with the state of the experiment; a sweep is resumed from the trials' own folders.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:  # noqa: ARG002
        record = self._record(trial)
        record.state, record.started_at = "running", time.monotonic()
        if record.mlflow is None:
            record.mlflow = self.store.start_run(
                kind="trial",
                run_id=f"{self.folder.name}/{record.point.index}",
                name=record.point.name,
                config=record.point.config,
                parent=self.parent.mlflow_id,
                point=record.point.repeated_name,
            )
        self.display.update(record)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any  # noqa: ARG002
    ) -> None:  # fmt: skip
        record = self._record(trial)
        record.metrics = {name: value for name, value in result.items() if name == "epoch" or _is_metric(name, value)}
        warn_of_collapse(record.metrics, record.point.name)
        self._track(record, lambda logger: logger(record.metrics))
        self.display.update(record)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:  # noqa: ARG002
        self._end(self._record(trial), "finished", "FINISHED")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:  # noqa: ARG002
        record = self._record(trial)
        record.error = _reason(record.folder)
        self._end(record, "failed", "FAILED")

    def close(self) -> None:
        """End what is still open: trials that an interruption left behind."""
        for record in self.records:
            if record.state == "running":
                self._end(record, "stopped", "KILLED")

    def _end(self, record: TrialRecord, state: str, status: str) -> None:
        record.state = state
        if record.started_at is not None:
            record.seconds = time.monotonic() - record.started_at
        if record.error is not None:
            self._track(record, lambda logger: logger.set_tag("clray.error", record.error or ""))
        self._track(record, lambda logger: logger.finish(status))
        self.display.update(record)

    def _track(self, record: TrialRecord, write: Callable[[RunLogger], None]) -> None:
        if record.mlflow is None:
            return
        try:
            write(record.mlflow)
        except Exception as error:  # a tracking store that fails must not end the training
            log.warning("MLflow did not record trial %s: %s", record.point.name, error)

    def _record(self, trial: Trial) -> TrialRecord:
        return self.records[trial.config["point"]]


def _is_metric(name: str, value: Any) -> bool:
    return name.split("/")[0] in ("train", "eval", "clusters", "recluster") and isinstance(value, int | float)


def _reason(folder: Path) -> str:
    """The trial's own error in one line; a process that was killed leaves none."""
    path = folder / ERROR_FILE
    return path.read_text(encoding="utf-8") if path.exists() else "its process died; is there enough memory?"
