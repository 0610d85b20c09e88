"""A sweep: its points as trials of Ray Tune, reported to a display and to MLflow."""

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune import Callback
from ray.tune.experiment import Trial

from clray.config import Config, override
from clray.data.samples import Dataset
from clray.errors import TrainingError
from clray.interrupts import uninterrupted
from clray.kmeans.service import service_ended
from clray.kmeans.shards.actors import shard_group
from clray.ray_runtime.cluster import num_cluster_gpus, require_room, room, start_ray, warn_of_unused_gpus
from clray.ray_runtime.orphans import orphans_removed
from clray.ray_runtime.room import NOTHING, Bundle, Group
from clray.sweeps.book import TrialBook
from clray.sweeps.prescreen import Prescreen
from clray.sweeps.schedulers import Judge, build_scheduler
from clray.sweeps.search_space import SweepPlan, SweepPoint
from clray.sweeps.searchers import BookSearcher, build_searcher
from clray.sweeps.trainable import ERROR_FILE, train_trial
from clray.sweeps.trials import OVER, TrialRecord, storage_name, write_outcome
from clray.sweeps.trunks import TRUNKS_FOLDER
from clray.sweeps.watching import Watch
from clray.track.runs import RunLogger, Tracker, describe_dataset
from clray.training.health import warn_of_collapse
from clray.training.start import StartClusters
from clray.training.storage import Stamps, keep_results
from clray.training.workers.opening import start_service
from clray.training.workers.resources import fewest_workers, needs_shards, worker_group

log = logging.getLogger(__name__)


class Display(Protocol):
    """Shows the trials while they run."""

    def update(self, record: TrialRecord) -> None: ...


def start_for_sweep(config: Config, points: list[SweepPoint], data: Dataset, *, verbose: bool) -> int:
    """Ray, with room for each trial beside the k-means shards; returns how many trials run at once.

    Raises:
        UserError: the cluster does not answer, or a trial does not fit its nodes.
    """
    shards, labels = _shards(config, points, 0.0), config.kmeans.node_labels
    # The cleaner that frees the placement groups of worker groups asks the dashboard's State API.
    start_ray(
        needed_cpus=_largest(points, data, 0.0).cpus + shards.cpus, dashboard=_is_group(points), verbose=verbose
    )  # fmt: skip
    num_gpus = gpus_for_trials(config, points)
    # Tune reserves the largest for every trial; a worker group takes what its own trial asks for.
    largest, shards = _largest(points, data, num_gpus), _shards(config, points, num_gpus)
    groups = _groups(points, data, num_gpus) if _is_group(points) else {largest}
    for group in groups:
        require_room(group, "a trial", beside=shards, labels=labels)
    warn_of_unused_gpus(largest)
    # Where so many of the largest fit, so many of any fit.
    limit = max(1, int(room(largest, beside=shards, labels=labels)))
    return min(limit, config.sweep.max_concurrent_trials or limit)


def gpus_for_trials(config: Config, points: list[SweepPoint]) -> float:
    """GPUs of the cluster that the k-means shards leave; a trial whose `train.gpus_per_worker` is `auto` asks it."""
    return num_cluster_gpus() - _shards(config, points, 0.0).gpus


def trial_resources(points: list[SweepPoint], data: Dataset, num_gpus: float) -> dict[str, float]:
    """What Tune reserves for each trial, by Ray's names; `num_gpus` as `gpus_for_trials` gives it.

    It reserves no worker of a group: what these need bounds the number of trials at once. Such a trial takes a byte, as
    Tune wants something; the least part of a CPU would cost its node a whole worker.
    """
    if _is_group(points):
        return {"memory": 1.0}
    needed = _largest(points, data, num_gpus).bundle
    return {"CPU": needed.cpus, "GPU": needed.gpus}


def _is_group(points: list[SweepPoint]) -> bool:
    return any(point.config.train.num_workers > 1 for point in points)


def _groups(points: list[SweepPoint], data: Dataset, num_gpus: float) -> set[Group]:
    """As many workers as each trial needs to begin."""
    return {fewest_workers(point.config, worker_group(point.config, data, num_gpus=num_gpus)) for point in points}


def _largest(points: list[SweepPoint], data: Dataset, num_gpus: float) -> Group:
    """As many workers as any trial may have, and of each resource as much for a worker as any needs."""
    groups = _groups(points, data, num_gpus)
    most = Bundle(max(each.bundle.cpus for each in groups), max(each.bundle.gpus for each in groups))
    return Group(max(point.config.train.num_workers for point in points), most, "worker")


def _shards(config: Config, points: list[SweepPoint], num_gpus: float) -> Group:
    """The k-means shards of the whole sweep; none where all trials search on their own GPUs."""
    needs = any(needs_shards(point.config, num_gpus=num_gpus) for point in points)
    return shard_group(config.kmeans) if needs else NOTHING


@contextmanager
def shared_service(config: Config, plan: SweepPlan, say: Callable[[str], None] | None = None) -> Iterator[Any | None]:
    """The k-means service of all trials while the block runs, where any asks for it; `say` as for `service_ended`."""
    has_shards = _shards(config, plan.samples, gpus_for_trials(config, plan.samples)).size > 0
    deterministic = any(point.config.train.deterministic for point in plan.samples)
    started = start_service(config.kmeans, deterministic=deterministic) if has_shards else None
    with service_ended(started, say) as service:
        yield service


def run_sweep(
    config: Config,
    plan: SweepPlan,
    data: Dataset,
    folder: Path,
    num_at_once: int,
    tracker: Tracker,
    display: Display,
    watch: Watch | None = None,
    clusters: StartClusters | None = None,
    *,
    service: Any | None = None,
    seen: Prescreen | None = None,
) -> tuple[list[TrialRecord], RunLogger]:
    """Run every trial; a failing one does not end the sweep, unless `sweep.fail_fast`.

    Finished trials are not run again, and those whose folder holds a checkpoint resume there, so a sweep that
    was interrupted is resumed by running it again. `start_for_sweep` comes first. Returns the trials and the open
    MLflow run of the sweep.

    Args:
        clusters: as `check_points` gives them.
        service: of `shared_service`.
        seen: the points that it leaves out are not trained.
    """
    book = TrialBook(config, plan, folder)
    searcher = BookSearcher(book, build_searcher(config, plan, folder))
    reporter = Reporter(book, folder, tracker, data, display, watch)
    for record in book.leave_out({} if seen is None else seen.left_out):
        reporter.skip(record)
    for record in book.records:
        display.update(record)
    num_gpus = gpus_for_trials(config, plan.samples)
    trainable = tune.with_parameters(
        train_trial, config=override(config, {"search_space": []}), folder=folder, data=[ray.put(data)],
        clusters=[ray.put(clusters or {})], num_gpus=num_gpus, first=book.first_number,
        service=service, trunks=book.trunks,
    )  # fmt: skip
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # accuracy is not measured at every epoch
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = "inf"  # its own state, 34 KiB a trial, from which nothing is resumed
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its banner ignores verbose=0
    tuner = tune.Tuner(
        tune.with_resources(trainable, trial_resources(plan.samples, data, num_gpus)),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=Judge(build_scheduler(config, plan), book),
            num_samples=max(plan.num_trials, 1),
            max_concurrent_trials=num_at_once,
            reuse_actors=not _is_group(plan.samples),
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder.resolve()),
            callbacks=[reporter],
            verbose=0,
            failure_config=tune.FailureConfig(
                max_failures=0 if config.sweep.fail_fast else config.sweep.max_failures,
                fail_fast=config.sweep.fail_fast,
            ),
        ),
    )
    try:
        with orphans_removed():
            tuner.fit()
    except KeyboardInterrupt:
        log.warning("interrupted again: not waiting for Ray Tune; writing the results of the finished trials")
    except RuntimeError as error:  # Ray Tune ends with it where Ray has killed a trial for its memory
        if isinstance(error.__cause__, ray.exceptions.OutOfMemoryError):
            raise out_of_memory(error.__cause__) from error
        raise
    finally:
        with uninterrupted():
            reporter.close()
            # Tune's own state; a sweep is resumed from the folders of its trials.
            shutil.rmtree(folder / "tune", ignore_errors=True)
            if not any(record.is_open for record in book.records):
                shutil.rmtree(folder / TRUNKS_FOLDER, ignore_errors=True)
    return book.records, reporter.parent


def out_of_memory(error: ray.exceptions.OutOfMemoryError) -> TrainingError:
    """What Ray says of trials that it killed, in its first line, with what to do."""
    return TrainingError(
        f"{str(error).strip().splitlines()[0]}. Trials that have finished are kept, the others have their checkpoints. "
        "Free memory, or run fewer trials at once (sweep.max_concurrent_trials), and resume the sweep"
    )


class Reporter(Callback):
    """Tune's events to the records, the display and MLflow, all in the driver: trials never import MLflow."""

    def __init__(
        self, book: TrialBook, folder: Path, tracker: Tracker, data: Dataset, display: Display, watch: Watch | None
    ) -> None:
        self.book, self.folder, self.tracker, self.display, self.watch = book, folder, tracker, display, watch
        self.described = describe_dataset(data, book.config.data)
        self.kept: Stamps = {}
        self.parent = tracker.start_run(kind="sweep", run_id=folder.name, name=folder.name, config=book.config)
        self.parent.log_dataset(self.described)

    def __getstate__(self) -> dict[str, Any]:
        # Tune saves its callbacks with the state of the experiment; a sweep is resumed from the trials' own folders.
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:  # noqa: ARG002
        record = self._record(trial)
        record.state, record.error = "running", None
        record.started_at = record.started_at or time.monotonic()
        if record.mlflow is None:
            record.mlflow = start_trial_run(self.tracker, record, self.parent.run_id)
            record.mlflow.log_dataset(self.described)
            trunk = self.book.trunks.get(record.point.index)
            if trunk is not None:
                record.mlflow.set_tags(trunk=trunk.folder.name)
        self._show(record)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **_: Any  # noqa: ARG002
    ) -> None:  # fmt: skip
        record = self._record(trial)
        record.metrics = {name: value for name, value in result.items() if name == "epoch" or _is_metric(name, value)}
        warn_of_collapse(record.metrics, record.point.name)
        changed = {k: v for k, v in record.point.overrides.items() if trial.config.get(k, v) != v}
        changed = {key: trial.config[key] for key in changed}
        if record.mlflow is not None:
            record.mlflow(record.metrics)
            if changed != record.changed:
                record.mlflow.set_tags(changed=", ".join(f"{key}={value:.4g}" for key, value in changed.items()))
        record.changed = changed
        self._show(record)

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:  # noqa: ARG002
        record = self._record(trial)
        self._end(record, "pruned" if record.reason else "finished", "FINISHED")
        _forget_means(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **_: Any) -> None:  # noqa: ARG002
        record = self._record(trial)
        record.error = _reason(record.folder)
        self._end(record, "failed", "FAILED")
        _forget_means(trial)

    def skip(self, record: TrialRecord) -> None:
        """Record a trial that is not worth training, with the figures of its clusters."""
        record.mlflow = start_trial_run(self.tracker, record, self.parent.run_id)
        record.mlflow.log_summary(record.metrics)
        self._end(record, "skipped", "FINISHED")

    def close(self) -> None:
        """End what is still open: trials that an interruption left behind."""
        for record in self.book.records:
            if record.state == "running":
                self._end(record, "stopped", "KILLED")

    def _end(self, record: TrialRecord, state: str, status: str) -> None:
        record.state = state
        if record.started_at is not None:
            record.seconds = time.monotonic() - record.started_at
        if record.mlflow is not None:
            self._log_end(record, record.mlflow)
            record.mlflow.finish(status)
        if state in OVER:
            write_outcome(record)  # last: with it, a resumed sweep leaves the trial alone
        # Those of the sweep that have changed, such as the points of a searcher; the end keeps all.
        keep_results(self.book.config, self.folder, self.folder.name, self.kept)
        keep_results(self.book.config, record.folder, storage_name(record.folder))
        self._show(record)

    def _log_end(self, record: TrialRecord, logger: RunLogger) -> None:
        tags = {"state": record.state}
        if record.error is not None:
            tags["error"] = record.error
        if record.reason is not None:
            tags["reason"] = record.reason
        logger.set_tags(**tags)
        for picture in sorted(record.folder.glob("*.png")):
            logger.log_file(picture)

    def _show(self, record: TrialRecord) -> None:
        self.display.update(record)
        if self.watch is not None:
            self.watch.update(self.book.records, record)

    def _record(self, trial: Trial) -> TrialRecord:
        return self.book.record(trial.config["point"])


def start_trial_run(tracker: Tracker, record: TrialRecord, sweep: str) -> RunLogger:
    """The trial's MLflow run, new or continued, below the sweep's."""
    return tracker.start_run(
        kind="trial",
        run_id=f"{sweep}/{record.point.index}",
        name=record.point.name,
        config=record.point.config,
        folder=record.folder,
        parent=sweep,
        point=record.point.repeated_name,
        swept=record.point.overrides,
    )


def _forget_means(trial: Trial) -> None:
    """Drop what Tune computes of each metric over the epochs, 127 KiB a trial; only its own analysis would read it."""
    trial.metric_analysis.clear()
    trial.metric_n_steps.clear()


def _is_metric(name: str, value: Any) -> bool:
    return name.split("/")[0] in ("train", "eval", "test", "clusters", "recluster") and isinstance(value, int | float)


def _reason(folder: Path) -> str:
    """The trial's own error in one line; a process that was killed leaves none."""
    path = folder / ERROR_FILE
    if not path.exists():
        return "its process was killed: out of memory, or its node was lost"
    return path.read_text(encoding="utf-8")
