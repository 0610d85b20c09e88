"""What a sweep leaves behind: results, pictures, a page, the best point as a config, its model, and two sentences."""

import json
import logging
import shlex
from pathlib import Path

from clray.config import Config, dump_yaml, flatten, override
from clray.data.load import Dataset
from clray.redaction import show_controls
from clray.report.figures import granularity, plane
from clray.report.page import write_page
from clray.report.png import draw_granularity, draw_plane
from clray.report.results import Sweep, TrialResult
from clray.report.summary import describe_best, summarize
from clray.sweeps.trials import TrialRecord, storage_name
from clray.sweeps.tuner import start_trial_run
from clray.track.models import write_model
from clray.track.runs import RunLogger, Tracker
from clray.training.storage import fetch_checkpoints
from clray.training.workers.session import read_metrics

RESULTS_FILE, BEST_FILE, PAGE_FILE = "results.json", "best.yaml", "report.html"
PICTURE_FILE, GRANULARITY_FILE = "information_plane.png", "granularity.png"
log = logging.getLogger(__name__)


def conclude(
    config: Config,
    ranked: list[TrialRecord],
    data: Dataset,
    folder: Path,
    tracker: Tracker,
    parent: RunLogger,
    timing: dict[str, float],
) -> dict[str, Path]:
    """Write everything into the sweep's folder and to its MLflow run; returns where to look, by name."""
    places = {"results": write_results(ranked, folder, timing)}
    scored = [record for record in ranked if config.sweep.metric in record.metrics]
    # A trial that was ended early stands at an earlier epoch: it is told of, but not compared.
    finished = [record for record in scored if record.state == "finished"]
    if finished:
        sweep, metric = as_sweep(scored, folder.name, len(data.train)), config.sweep.metric
        title = f"What clusters were worth: {folder.name}"
        places["picture"] = draw_plane(plane([sweep], metric), folder / PICTURE_FILE, title)
        places["granularity"] = draw_granularity(granularity([sweep], metric), folder / GRANULARITY_FILE)
        places["report"] = write_page([sweep], folder / PAGE_FILE, metric)
        places["best"] = _write_best(finished[0], config, folder)
        _log_best(finished, sweep, config, data, tracker, parent)
    for file in places.values():
        parent.log_file(file)
    return places


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


def as_sweep(records: list[TrialRecord], name: str, num_images: int | None = None) -> Sweep:
    """The trials as a store would hold them."""
    trials = []
    for record in records:
        config = override(record.point.config, record.changed)
        params = {key: str(value) for key, value in flatten(config.model_dump(mode="json")).items()}
        point = record.point.repeated_name
        trials.append(TrialResult(point, config.seed, record.metrics, params, record.state, record.reason))
    return Sweep(name, trials, num_images)


def _write_best(best: TrialRecord, config: Config, folder: Path) -> Path:
    """The best trial as a config ready for `clray train`, with the seed of the sweep."""
    path = folder / BEST_FILE
    chosen = override(best.point.config, {**best.changed, "seed": config.seed, "search_space": []})
    head = [f"{best.point.name}: the best trial of {folder.name}", shlex.join(["clray", "train", str(path)])]
    # In a comment a name of several lines would end it.
    comment = "".join(f"# {' '.join(show_controls(line).split())}\n" for line in head)
    path.write_text(comment + dump_yaml(chosen), encoding="utf-8")
    return path


def _log_best(
    finished: list[TrialRecord], sweep: Sweep, config: Config, data: Dataset, tracker: Tracker, parent: RunLogger
) -> None:
    best, metric = finished[0], config.sweep.metric
    about = describe_best(summarize(sweep.trials, metric), len(sweep.trials), metric)
    parent.set_tags(note=about, best_trial=best.point.name)
    parent.set_headline(about, metric, PAGE_FILE)
    values = {f"best/{name}": value for name, value in best.metrics.items() if name.startswith(("eval/", "clusters/"))}
    parent.log_summary(values)
    for record in finished:
        is_best = record is best
        if not is_best and config.tracking.models != "all":
            continue
        if record.mlflow is None:  # finished before an interruption
            record.mlflow = start_trial_run(tracker, record, parent.run_id)
        if config.tracking.models != "none":
            try:
                fetch_checkpoints(config, record.folder, storage_name(record.folder))
                record.mlflow.log_model(write_model(record.folder, record.point.config, data))
            except Exception as error:  # such as an encoder of the user's that torch cannot export
                log.warning("no MLflow model of %s: %s", record.point.name, error)
        if is_best:
            record.mlflow.set_tags(best="true", note=f"The best trial of its sweep. {about}")
        record.mlflow.finish()
