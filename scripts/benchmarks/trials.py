"""What very many trials cost the driver, the MLflow store and the reports, without training any of them.

    python scripts/benchmarks/trials.py 1000
    python scripts/benchmarks/trials.py 10000 --without-store

Fills a sweep's folder and store with trials that have finished, by what writes them in a sweep: the book deals them,
the reporter hears of them as from Ray Tune, and the end of a sweep is written. Only training and Ray are left out. Then
the sweep is planned and opened again, as `--resume` does, and reported on. Prints JSON: CPU seconds of each part.
"""

import argparse
import json
import random
import resource
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from clray.config import Config
from clray.config.source import load_tree, read_config
from clray.console import PlainConsole
from clray.data.load import load_dataset
from clray.report.page import write_page
from clray.sweeps.book import TrialBook
from clray.sweeps.check import check_points
from clray.sweeps.coincidence import without_coincident
from clray.sweeps.display import LiveTable
from clray.sweeps.search_space import SweepPlan, plan_sweep
from clray.sweeps.searchers import BookSearcher
from clray.sweeps.summary import conclude
from clray.sweeps.trials import rank_records
from clray.sweeps.tuner import Reporter
from clray.track.entries import Entries
from clray.track.mlflow import Store, open_store
from clray.track.outbox import Outbox
from clray.track.results import read_sweep
from clray.track.runs import Tracker
from clray.track.writer import StoreWriter
from clray.training.folder import write_config
from clray.training.metrics import append_metrics

CONFIG = Path("tune_configs/quickstart.yaml")
NUM_EPOCHS, NUM_AT_ONCE = 3, 8
METRIC = "eval/linear_accuracy"
MEANS_OF_TUNE: dict[str, Any] = {"metric_analysis": {}, "metric_n_steps": {}}
"""What Tune's trials have and the driver empties; here nothing fills them."""


class Timing(dict[str, float]):
    """CPU seconds of this process, all threads, by part."""

    @contextmanager
    def of(self, part: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self[part] = round(time.process_time() - start, 2)


def config_of(num_trials: int, output: Path) -> Config:
    """A grid of numbers of clusters and temperatures, with nothing drawn or exported at its end."""
    counts = list(range(2, 102))
    temperatures = [round(0.05 + number / 1000, 4) for number in range(num_trials // len(counts))]
    space = {
        "clusters.num_clusters": {"grid_search": counts},
        "objective.temperature": {"grid_search": temperatures},
    }
    return read_config(
        {**load_tree(CONFIG), "search_space": [space]},
        {
            "output": str(output), "train.num_epochs": NUM_EPOCHS,
            "recluster.warmup_epochs": 1, "sweep.metric": METRIC,
            "tracking.pages": "none", "tracking.pictures": "none", "tracking.models": "none",
        },
    )  # fmt: skip


def metrics_of(epoch: int, draw: random.Random) -> dict[str, float]:
    """As many figures as an epoch of such a trial has."""
    names = (
        "train/loss", "train/samples_per_second", "train/data_wait_seconds", "train/seconds", "train/learning_rate",
        "eval/knn_accuracy", "eval/seconds", "clusters/num_clusters", "clusters/num_nonempty", "clusters/entropy_bits",
        "clusters/label_entropy_bits", "clusters/mutual_information_bits", "clusters/conditional_entropy_bits",
        "clusters/adjusted_mutual_information_bits", "clusters/label_conditional_entropy_bits", "clusters/nmi",
        "clusters/ami", "clusters/ari", "clusters/imbalance_factor", "recluster/seconds", "recluster/inertia",
        "recluster/num_iterations", "recluster/moved_fraction", "recluster/age_epochs",
    )  # fmt: skip
    found = {name: 1 + draw.random() for name in names}
    if epoch == NUM_EPOCHS:
        found[METRIC] = draw.random()
    return {"epoch": epoch, **found}


def fill(config: Config, plan: SweepPlan, data: Any, folder: Path, tracker: Tracker, timing: Timing) -> None:
    """Deal all trials, a few at a time, and tell the reporter of their epochs and ends."""
    console = PlainConsole(file=(folder / "terminal.txt").open("w"), force_terminal=True, width=120)
    draw = random.Random(0)
    with LiveTable(console, config, plan.num_trials) as table, timing.of("driver"):
        book = TrialBook(config, plan, folder)
        searcher = BookSearcher(book, None)
        reporter = Reporter(book, folder, tracker, data, table, None)
        for record in book.records:
            table.update(record)
        running: list[Any] = []
        number = 0
        while True:
            while len(running) < NUM_AT_ONCE and isinstance(found := searcher.suggest(str(number)), dict):
                running.append(SimpleNamespace(config=found, trial_id=str(number), **MEANS_OF_TUNE))
                number += 1
                reporter.on_trial_start(0, [], running[-1])
            if not running:
                break
            trial = running.pop(0)
            own = book.record(trial.config["point"]).folder
            for epoch in range(1, NUM_EPOCHS + 1):
                metrics = metrics_of(epoch, draw)
                append_metrics(own, metrics)
                reporter.on_trial_result(0, [], trial, metrics)
            reporter.on_trial_complete(0, [], trial)
            searcher.on_trial_complete(trial.trial_id, metrics)
        reporter.close()
    with timing.of("conclusion"):
        conclude(config, rank_records(book.records, config), data, folder, tracker, reporter.parent, {})
        reporter.parent.finish()


class NoStore(Tracker):
    """Keeps entries in the folder as ever, and writes them nowhere: MLflow takes 0.1 CPU seconds a trial."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store, self.folder, self.writer = store, folder, StoreWriter(store, folder)
        self.outbox = Outbox(folder, lambda _: None)


def measure(num_trials: int, place: Path, *, with_store: bool) -> dict[str, Any]:
    """Fill, resume and report; CPU seconds by part, sizes in MiB."""
    timing, folder = Timing(), place / "many"
    config = config_of(num_trials, place)
    with timing.of("plan"):
        plan = plan_sweep(config)
    data = load_dataset(config.data)
    with timing.of("check"):
        clusters, _ = check_points(plan.samples, data)
        plan, _ = without_coincident(plan, clusters)
    write_config(config, folder)
    start = time.monotonic()
    store = open_store(config.tracking, place)
    track = Tracker if with_store else NoStore
    tracker = track(store, folder)
    fill(config, plan, data, folder, tracker, timing)
    wall = time.monotonic() - start
    with timing.of("rest of the entries"):
        tracker.close(60)
    with timing.of("resume: outbox"):
        again = track(store, folder)
    with timing.of("resume: book"):
        book = TrialBook(config, plan, folder)
        assert not any(record.is_open for record in book.records)
    again.close(60)
    if not with_store:
        copy_trials(store, folder, book)
    with timing.of("report: read"):
        sweep = read_sweep(store.uri, "many")
    assert len(sweep.trials) == num_trials
    with timing.of("report: page"):
        page = write_page([sweep], place / "many.html")
    return {
        "trials": num_trials,
        "entries": tracker.outbox.progress.num_entries,
        "filling_wall_seconds": round(wall, 1),
        "writing_seconds": round(tracker.outbox.progress.seconds_writing, 1),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "store_mib": _mib(place / "mlflow.db"),
        "outbox_mib": _mib(folder / "mlflow.outbox.jsonl"),
        "page_mib": _mib(page),
        "cpu_seconds": timing,
    }


def copy_trials(store: Store, folder: Path, book: TrialBook) -> None:
    """Write the sweep and its first trial to the store, and that trial's rows once for each of the others."""
    writer, entries = StoreWriter(store, folder), Entries(folder)
    first = f"many/{book.records[0].point.index}"
    for run in ("many", first):
        for entry in entries.of(run):
            if entry["op"] in ("start", "metrics", "tags", "values", "finish"):
                writer(entry)
    own = writer.mlflow_ids[first]
    copies = [(f"{number:032x}",) for number in range(1, len(book.records))]
    with closing(sqlite3.connect(place_of(store.uri))) as connection, connection:
        for table in ("runs", "params", "tags", "latest_metrics", "metrics"):
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
            others = ", ".join(name for name in columns if name != "run_uuid")
            connection.executemany(
                f"INSERT INTO {table} (run_uuid, {others}) SELECT ?, {others} FROM {table} WHERE run_uuid = '{own}'",
                copies,
            )


def place_of(uri: str) -> str:
    return uri.removeprefix("sqlite:///")


def _mib(path: Path) -> float:
    return round(path.stat().st_size / 2**20, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=int, nargs="+", help="Numbers of trials, multiples of 100.")
    parser.add_argument(
        "--without-store", action="store_true", help="Write one trial to MLflow and copy its rows for the report."
    )
    arguments = parser.parse_args()
    for count in arguments.trials:
        with tempfile.TemporaryDirectory() as name:
            found = measure(count, Path(name), with_store=not arguments.without_store)
            print(json.dumps(found, indent=2), flush=True)


if __name__ == "__main__":
    main()
