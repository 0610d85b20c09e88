"""What a sweep leaves behind: results, pictures, a page, the best point as a config, its model, and the answer."""

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from clray.config import Config, dump_yaml, flatten, override
from clray.data.samples import Dataset
from clray.report.answer import NO_TRIAL, Answer, answer_of, headline, sentences
from clray.report.figures import granularity, plane
from clray.report.look.page import draw_best
from clray.report.markdown import escape
from clray.report.page import write_page
from clray.report.png import draw_granularity, draw_plane
from clray.report.results import Sweep, TrialResult
from clray.report.text import visible
from clray.sweeps.trainable import read_untrained
from clray.sweeps.trials import TrialRecord, storage_name
from clray.sweeps.tuner import start_trial_run
from clray.track.models import log_model
from clray.track.runs import RunLogger, Tracker
from clray.training.metrics import read_metrics

RESULTS_FILE, BEST_FILE, PAGE_FILE = "results.json", "best.yaml", "report.html"
CLUSTERS_FILE = "clusters.html"
PICTURE_FILE, GRANULARITY_FILE = "information_plane.png", "granularity.png"


@dataclass(frozen=True)
class Conclusion:
    """What a sweep came to.

    Attributes:
        places: files that were written, by what they are.
        best: the best repeat of the point that the answer names; None where no trial has finished.
        answer: its sentences, the first of which says it all.
    """

    places: dict[str, Path]
    best: TrialRecord | None
    answer: tuple[str, ...]


def conclude(
    config: Config,
    ranked: list[TrialRecord],
    data: Dataset,
    folder: Path,
    tracker: Tracker,
    parent: RunLogger,
    timing: dict[str, float],
) -> Conclusion:
    """Write everything into the sweep's folder and to its MLflow run.

    Args:
        ranked: the trials, best first.
    """
    metric = config.sweep.metric
    scored = [record for record in ranked if metric in record.metrics]
    sweep = replace(
        as_sweep(scored, metric, folder, data),
        skipped=_as_trials([record for record in ranked if record.state == "skipped"]),
    )
    answer = answer_of(sweep, metric)
    said = (NO_TRIAL,) if answer is None else tuple(sentences(answer))
    # A trial that was ended early stands at an earlier epoch: it is told of, but not compared.
    finished = [record for record in scored if record.state == "finished"]
    best = None
    if answer is not None:
        best = next(record for record in finished if record.point.repeated_name == answer.best.point)
    places = {"results": write_results(ranked, folder, timing, said, best)}
    if answer is not None and best is not None:
        places |= _draw(sweep, best, config, data, folder)
        places["best"] = _write_best(best, said[0], config, folder)
        _log_sweep(sweep, config, parent)
        _log_best(finished, best, answer, config, data, tracker, parent)
        parent.set_headline(
            escape(headline(answer)),
            config.sweep.metric,
            PAGE_FILE,
            clusters=CLUSTERS_FILE if "clusters" in places else None,
            swept=sorted({key for record in finished for key in record.point.overrides}),
        )
    for file in places.values():
        parent.log_file(file)
    return Conclusion(places, best, said)


def write_results(
    ranked: list[TrialRecord],
    folder: Path,
    timing: dict[str, float],
    answer: tuple[str, ...] = (),
    best: TrialRecord | None = None,
) -> Path:
    """`results.json`: the answer, the folder of the best trial, the trials, and where the time went.

    The trials are in the order given; times are seconds, summed over them.
    """
    names = ("train/seconds", "recluster/seconds", "eval/seconds")
    sums = dict.fromkeys(names, 0.0)
    for record in ranked:
        for metrics in read_metrics(record.folder):
            for name in names:
                sums[name] += metrics.get(name, 0.0)
    path = folder / RESULTS_FILE
    trials = [record.as_dict() for record in ranked]
    named = None if best is None else best.folder.name
    tree = {"answer": list(answer), "best": named, "trials": trials, "timing": {**timing, **sums}}
    path.write_text(json.dumps(tree, indent=2), encoding="utf-8")
    return path


def as_sweep(records: list[TrialRecord], metric: str, folder: Path, data: Dataset) -> Sweep:
    """The trials as a store would hold them."""
    num_validation = None if data.validation is None else len(data.validation)
    trials, untrained = _as_trials(records), read_untrained(folder)
    return Sweep(folder.name, trials, metric, len(data.train), len(data.test), num_validation, untrained)


def _as_trials(records: list[TrialRecord]) -> list[TrialResult]:
    trials = []
    for record in records:
        # A config is validated in a millisecond: 10 s for 10,000 trials, of which hardly one has changed.
        config = override(record.point.config, record.changed) if record.changed else record.point.config
        params = {key: str(value) for key, value in flatten(config.model_dump(mode="json")).items()}
        point = record.point.repeated_name
        trials.append(TrialResult(point, config.seed, record.metrics, params, record.state, record.reason))
    return trials


def _draw(sweep: Sweep, best: TrialRecord, config: Config, data: Dataset, folder: Path) -> dict[str, Path]:
    """Pictures and pages of the sweep, and what `tracking.pages` asks for of its best trial."""
    shown = plane([sweep], sweep.metric)
    places = {
        "picture": draw_plane(shown, folder / PICTURE_FILE, f"What clusters were worth: {folder.name}"),
        "granularity": draw_granularity(granularity([sweep], sweep.metric), folder / GRANULARITY_FILE),
    }
    page = None
    if config.tracking.pages != "none":
        page = draw_best(best.folder, best.point.config, data, folder / CLUSTERS_FILE)
    if page is not None:
        places["clusters"] = page
    places["report"] = write_page([sweep], folder / PAGE_FILE, clusters=None if page is None else page.name)
    return places


def _write_best(best: TrialRecord, answer: str, config: Config, folder: Path) -> Path:
    """The best point as a config ready for `clray train`, with the seed of the sweep."""
    path = folder / BEST_FILE
    chosen = override(best.point.config, {**best.changed, "seed": config.seed, "search_space": []})
    command = shlex.join(["clray", "train", str(path)])
    head = "".join(f"# {visible(line)}\n" for line in (answer, command))
    path.write_text(head + dump_yaml(chosen), encoding="utf-8")
    return path


def _log_sweep(sweep: Sweep, config: Config, parent: RunLogger) -> None:
    """What a report read from the store alone needs besides the trials."""
    counts = {
        "num_images": sweep.num_images,
        "num_test_images": sweep.num_test_images,
        "num_validation_images": sweep.num_validation_images,
    }
    known = {name: str(count) for name, count in counts.items() if count is not None}
    parent.set_tags(metric=config.sweep.metric, **known)
    parent.log_summary({f"untrained/{name}": value for name, value in sweep.untrained.items()})


def _log_best(
    finished: list[TrialRecord], best: TrialRecord, answer: Answer, config: Config, data: Dataset,
    tracker: Tracker, parent: RunLogger,
) -> None:  # fmt: skip
    about = escape(" ".join(sentences(answer)))
    parent.set_tags(note=about, best_trial=best.point.name)
    values = {
        f"best/{name}": value
        for name, value in best.metrics.items()
        if name.startswith(("eval/", "test/", "clusters/"))
    }
    parent.log_summary(values)
    for record in finished:
        is_best = record is best
        if not is_best and config.tracking.models != "all":
            continue
        if record.mlflow is None:  # finished before an interruption
            record.mlflow = start_trial_run(tracker, record, parent.run_id)
        if config.tracking.models != "none":
            log_model(
                record.mlflow,
                record.folder,
                record.point.config,
                data,
                stored_as=storage_name(record.folder),
                register_as=config.tracking.register_as if is_best else None,
            )
        if is_best:
            record.mlflow.set_tags(best="true", note=f"The best of its sweep. {about}")
        record.mlflow.finish()
