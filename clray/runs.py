"""A run and a sweep from beginning to end: open what they need, run, and close whatever way they end.

Everything that can be refused is refused before a folder is made. Nothing here parses arguments or prints.
"""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clray.config import Config, override
from clray.config.objects import read_with_objects, require_modules
from clray.config.source import Source
from clray.errors import UserError
from clray.preparing import choose_folder, load_data, observer_of, prepare_sweep, with_metric_told
from clray.progress import Observer
from clray.recording import keep, recorded

if TYPE_CHECKING:
    import pandas as pd

    from clray.sweeps.trials import TrialRecord


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: holds its config, metrics by epoch, checkpoints and pictures.
        config: resolved.
        metrics: of the last epoch.
        history: the metrics of each epoch.
        tracking_uri: the MLflow store that recorded it.
        page: address of its page in the MLflow UI.
    """

    folder: Path
    config: Config
    metrics: dict[str, float]
    history: list[dict[str, float]]
    tracking_uri: str
    page: str | None


@dataclass(frozen=True)
class SweepResult:
    """A sweep, finished or interrupted.

    Attributes:
        folder: holds results, report, pictures and a folder for each trial.
        config: resolved.
        records: the trials, best first.
        best: folder of the trial that the answer names; None where no trial finished.
        answer: which clusters and temperature, how sure, and why, in sentences; the first says it all.
        num_open: trials that have not ended; resuming the sweep runs them.
        places: files that were written, by what they are.
        tracking_uri, page: as for a run.
    """

    folder: Path
    config: Config
    records: "list[TrialRecord]"
    best: Path | None
    answer: tuple[str, ...]
    num_open: int
    places: dict[str, Path]
    tracking_uri: str
    page: str | None

    @property
    def table(self) -> "pd.DataFrame":
        """A row for each trial, best first: name, state, what the search space chose, metrics, seconds and folder."""
        import pandas as pd

        rows = []
        for record in self.records:
            tree = record.as_dict()
            rows.append(
                {
                    "trial": tree["trial"], "state": tree["state"], **tree["config"], **tree["metrics"],
                    "seconds": tree["seconds"], "error": tree["error"], "folder": tree["folder"],
                }
            )  # fmt: skip
        return pd.DataFrame(rows)


def train(
    source: Source,
    overrides: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    resume: bool = False,
    debug: bool = False,
    progress: bool = False,
    verbose: bool = False,
    observer: Observer | None = None,
) -> Run:
    """Train one run; a search space in the config is ignored.

    Example:
        >>> run = clray.train("tune_configs/quickstart.yaml", {"clusters.num_clusters": 50})
        >>> run.metrics["eval/linear_accuracy"]

    Args:
        source: path of a YAML file, tree of sections, or Config.
        overrides: values by dotted key, such as `{"objective.temperature": 0.2}`. Where a key takes `module:name`, the
            function or class itself will do.
        name: of the run's folder in `output`; by default from the config's name and the time.
        resume: continue the run of this name from its newest checkpoint.
        debug: everything in this process and thread, k-means included, without Ray.
        progress: show a bar.
        verbose: let Ray print its messages.
        observer: hears of the run instead.

    Raises:
        UserError: what can be put right; before anything is written, but for what only training can find.
        TrainingError: training that cannot continue.
    """
    config = read_with_objects(source, overrides).model_copy(update={"search_space": ()})
    observer = observer_of(observer, progress)
    with observer.preparing("preparing data, MLflow store and Ray"):
        _check_devices(config, debug)
        if config.train.num_workers > 1:
            require_modules(config)
        folder = choose_folder(config, source, name, resume, observer)
        data = load_data(config, observer)
        from clray.training.folder import claim_storage
        from clray.training.headline import with_metric
        from clray.training.metrics import last_metrics, read_metrics
        from clray.training.precision import precision_of
        from clray.training.start import prepare
        from clray.training.workers.gpus import num_visible_gpus, with_gpus
        from clray.training.workers.launch import launch
        from clray.training.workers.resources import needs_ray

        start = prepare(config, data)
        for note in start.notes:
            observer.note(note)
        settled = asked = with_metric(config, data)
        if config.train.num_workers == 1:
            settled = with_gpus(settled, num_visible_gpus())
        claim_storage(config, folder, resume)
        service: Any | None = None
        ending: AbstractContextManager[Any] = nullcontext()
        is_on_ray = needs_ray(settled) and not debug
        if is_on_ray:
            from clray.kmeans.service import service_ended
            from clray.training.workers.opening import start_for_run

            opened = start_for_run(settled, data, verbose=verbose)
            settled, service = opened.config, opened.service
            ending = service_ended(service, observer.note)
    from clray.track.runs import describe_dataset
    from clray.track.single import log_result
    from clray.training.health import warn_of_collapse

    with ending, recorded(config, folder, observer, resume=resume, is_on_ray=is_on_ray) as tracker:
        logger = tracker.start_run(kind="run", run_id=folder.name, name=folder.name, config=config)
        logger.log_dataset(describe_dataset(data, config.data))

        def on_report(metrics: dict[str, float]) -> None:
            logger(metrics)
            if config.train.precision == "auto" and metrics["epoch"] == 1:
                observer.note(f"train.precision=auto took {precision_of(metrics)}")
            observer.epoch(metrics)
            warn_of_collapse(metrics, folder.name)

        with observer.training(settled, None):
            launch(
                settled, data, folder, start, asked=asked, service=service, on_report=on_report,
                on_step=observer.step, debug=debug,
            )  # fmt: skip
        log_result(logger, folder, config, data)
        keep(config, folder)
        logger.finish("FINISHED")
    history = read_metrics(folder)
    return Run(folder, config, last_metrics(folder), history, tracker.store.uri, tracker.page_of(folder.name))


def sweep(
    source: Source,
    overrides: Mapping[str, Any] | None = None,
    *,
    name: str | None = None,
    resume: bool = False,
    fail_fast: bool = False,
    progress: bool = False,
    verbose: bool = False,
    observer: Observer | None = None,
) -> SweepResult:
    """Run every point of the config's search space as a trial.

    A trial that fails does not end the sweep, unless `fail_fast`. After Ctrl-C the result holds what has finished.

    Example:
        >>> result = clray.sweep("tune_configs/quickstart.yaml")
        >>> result.table.sort_values("eval/linear_accuracy")

    Args: as for `train`.

    Raises:
        UserError: what can be put right, before any trial starts.
    """
    started = time.monotonic()
    config = read_with_objects(source, overrides)
    require_modules(config)
    observer = observer_of(observer, progress)
    with observer.preparing("preparing data, MLflow store and Ray"):
        plan, folder, data, clusters = prepare_sweep(config, source, name, resume, observer)
        settled = with_metric_told(config, data, observer)
        from clray.sweeps.prescreen import prescreen
        from clray.sweeps.trials import rank_records
        from clray.sweeps.tuner import gpus_for_trials, run_sweep, shared_service, start_for_sweep
        from clray.sweeps.watching import Watch
        from clray.training.folder import claim_storage

        claim_storage(config, folder, resume)
        num_at_once = start_for_sweep(config, plan.samples, data, verbose=verbose)
    timing: dict[str, float] = {}
    # The folder keeps the config as it was given, which is what a resumed sweep is compared with.
    given, config = config, settled
    running = override(config, {"sweep.fail_fast": True}) if fail_fast else config
    seen = None
    with (
        recorded(given, folder, observer, resume=resume, is_on_ray=True) as tracker,
        shared_service(config, plan, observer.note) as service,
    ):
        timing["start_up_seconds"] = time.monotonic() - started
        if config.sweep.prescreen:
            with observer.preparing("training what trials share, to look at their clusters"):
                seen = prescreen(
                    config, plan, data, folder, clusters=clusters, service=service,
                    num_gpus=gpus_for_trials(config, plan.samples), num_at_once=num_at_once,
                )  # fmt: skip
            observer.note(f"prescreen: {seen.sentence}")
        watch = Watch(folder.name, plan.num_trials, config.sweep.metric)
        with observer.training(config, plan.num_trials):
            records, parent = run_sweep(
                running, plan, data, folder, num_at_once, tracker, observer, watch, clusters, service=service, seen=seen
            )
        timing["wall_seconds"] = time.monotonic() - started
        timing["trials_seconds"] = timing["wall_seconds"] - timing["start_up_seconds"]
        ranked = rank_records(records, config)
        num_open = sum(record.is_open for record in records) + plan.num_trials - len(records)
        with observer.preparing("writing results, pictures and the best model"):
            from clray.sweeps.summary import conclude

            found = conclude(config, ranked, data, folder, tracker, parent, timing)
            keep(config, folder)
            parent.finish("KILLED" if num_open else "FINISHED")
    best = None if found.best is None else found.best.folder
    page = tracker.page_of(folder.name)
    return SweepResult(
        folder, config, ranked, best, tuple(found.answer), num_open, found.places, tracker.store.uri, page
    )


def _check_devices(config: Config, debug: bool) -> None:
    """Refuse what this process cannot give, before anything is read."""
    if debug and config.train.num_workers > 1:
        raise UserError(
            f"debug: one process holds one worker, and train.num_workers={config.train.num_workers}; set it to 1"
        )
    if config.train.num_workers == 1 and config.train.gpus_per_worker != "auto":
        from clray.training.workers.gpus import device_of

        device_of(config.train)
    if debug and config.clusters.source == "kmeans" and config.kmeans.gpus_per_shard > 0:
        from clray.kmeans.shards.choice import require_gpu

        require_gpu(config.kmeans.backend, config.kmeans.gpus_per_shard)
