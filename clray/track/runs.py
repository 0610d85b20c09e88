"""Runs as MLflow will show them: one parent per sweep, one child per trial, params once, metrics by epoch."""

import hashlib
import math
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from clray.config import Config, dump_yaml, flatten
from clray.config.sections import DataConfig
from clray.data.samples import Dataset
from clray.redaction import hide_in_tree
from clray.track.entries import Entries, Entry
from clray.track.mlflow import POINT_TAG, Store, require_not_deleted
from clray.track.outbox import Outbox
from clray.track.pages import SWEPT, run_page
from clray.track.writer import StoreWriter
from clray.training.metrics import Metrics, read_metrics

VERSIONED = ("clray", "torch", "ray", "faiss-gpu", "faiss-cpu", "mlflow", "numpy")


class Tracker:
    """Records the runs of a command in the order in which things happen; see `Outbox`."""

    def __init__(self, store: Store, folder: Path) -> None:
        """Open what an earlier process left in the folder.

        Raises:
            UserError: a run to continue was deleted in MLflow, or the folder cannot be written.
        """
        self.store, self.writer, self.folder = store, StoreWriter(store, folder), folder
        entries = Entries(folder)
        last = entries.last_ops
        first = next(iter(last), None)
        if first is not None:
            require_not_deleted(store, {first, *(run for run, op in last.items() if op != "FINISHED")})
        # A store that is new, or another than before, gets all that the folder keeps.
        is_new = first is not None and not self.writer.knows(first)
        self.outbox = Outbox(folder, self.writer, entries=entries, from_start=is_new)

    def start_run(
        self,
        *,
        kind: str,
        run_id: str,
        name: str,
        config: Config,
        folder: Path | None = None,
        parent: str | None = None,
        point: str | None = None,
        swept: Mapping[str, Any] | None = None,
    ) -> "RunLogger":
        """Begin a run, or continue the one with the same `run_id`.

        Args:
            kind: `sweep`, `trial` or `run`.
            run_id: clray's own id, kept in a tag; unique within the experiment.
            folder: where the run keeps its `metrics.jsonl`, by default the tracker's.
            parent: `run_id` of the sweep.
            point: name of the sweep's point, which all its repeats share.
            swept: what the search space chose; listed again among the parameters, where it comes first.
        """
        folder = folder or self.folder
        known = self.outbox.entries.runs.get(run_id)
        if known is not None:
            self.outbox.add({"op": "resume", "run": run_id})
            return RunLogger(self.outbox, run_id, folder, known.step)

        def varies(key: str) -> bool:
            return kind == "sweep" and any(key in space for space in config.search_space)

        tags = {
            "clray.kind": kind,
            "clray.cluster_source": "swept" if varies("clusters.source") else config.clusters.source,
            "clray.objective": "swept" if varies("objective.name") else config.objective.name,
            **({} if point is None else {POINT_TAG: point}),
            **_provenance(),
        }
        tree = hide_in_tree(config.model_dump(mode="json"))
        flat = flatten({key: value for key, value in tree.items() if key not in ("search_space", "tracking", "output")})
        chosen = {f"{SWEPT}{key}": value for key, value in (swept or {}).items()}
        self.outbox.add(
            {
                "op": "start",
                "run": run_id,
                "name": name,
                "tags": tags,
                "params": {key: str(value) for key, value in (chosen | flat).items()},
                "parent": parent,
                "time": _now(),
                "system_metrics": kind != "trial" and config.tracking.system_metrics,
            }
        )
        self.outbox.add({"op": "text", "run": run_id, "text": dump_yaml(config), "file": "config.yaml"})
        return RunLogger(self.outbox, run_id, folder)

    def page_of(self, run_id: str) -> str | None:
        """The address of a run's page in the MLflow UI; None where the store has not heard of the run yet."""
        mlflow_id = self.writer.mlflow_ids.get(run_id)
        return None if mlflow_id is None else run_page(self.store, mlflow_id)

    def end_open(self, status: str) -> None:
        """End the runs that have begun and not ended, as FAILED or KILLED."""
        for run_id, op in self.outbox.entries.last_ops.items():
            if op in ("start", "resume"):
                self.outbox.add({"op": "finish", "run": run_id, "status": status, "time": _now()})

    def close(self, wait_seconds: float) -> int:
        """Write what is left; returns the number of entries that the store could not be given."""
        return self.outbox.close(wait_seconds)


@dataclass
class RunLogger:
    """Writes to one run."""

    outbox: Outbox
    run_id: str
    folder: Path
    last_epoch: int = 0
    """Epochs up to this one are recorded already, by the run before it was resumed."""

    def __call__(self, metrics: Metrics) -> None:
        """Log an epoch's metrics at step `epoch`, in one request."""
        epoch = int(metrics["epoch"])
        if epoch > self.last_epoch + 1:
            self._catch_up(epoch)
        if epoch > self.last_epoch:
            self._log(epoch, metrics)

    def _catch_up(self, before: float = math.inf) -> None:
        """Log what the run wrote down but the process that records it was killed before it heard of."""
        for metrics in read_metrics(self.folder):
            if self.last_epoch < metrics["epoch"] < before:
                self._log(int(metrics["epoch"]), metrics)

    def _log(self, epoch: int, metrics: Metrics) -> None:
        values = {name: value for name, value in metrics.items() if "/" in name}
        self.outbox.add({"op": "metrics", "run": self.run_id, "step": epoch, "time": _now(), "values": values})
        self.last_epoch = epoch

    def log_file(self, path: Path) -> None:
        self.outbox.add({"op": "file", "run": self.run_id, "path": str(path.resolve())})

    def log_model(self, folder: Path, epoch: int) -> None:
        """A folder as MLflow's own `save_model` writes it, linked to the run's metrics of the epoch it is of."""
        known: Entry = {}
        for entry in self.outbox.entries.of(self.run_id):
            if (entry.get("op"), entry.get("step")) == ("metrics", epoch):
                known = entry
        of_epoch = {"step": epoch, "time": known.get("time"), "values": known.get("values", {})}
        self.outbox.add({"op": "model", "run": self.run_id, "path": str(folder.resolve()), **of_epoch})

    def register_model(self, name: str) -> None:
        """Register the run's model, which has been logged, and make it the champion of that name."""
        self.outbox.add({"op": "register", "run": self.run_id, "name": name})

    def log_dataset(self, described: Entry) -> None:
        """The data as MLflow's dataset input, as `describe_dataset` gives it."""
        self.outbox.add({"op": "dataset", "run": self.run_id, **described})

    def log_summary(self, values: dict[str, float]) -> None:
        """Figures of a whole sweep, such as those of its best trial."""
        known: dict[str, float] = {}
        for entry in self.outbox.entries.of(self.run_id):
            if entry.get("op") == "metrics":
                known |= entry.get("values", {})
        finite = {name: float(value) for name, value in values.items() if np.isfinite(value)}
        finite = {name: value for name, value in finite.items() if known.get(name) != value}
        if not finite:
            return  # recorded before an interruption
        self.outbox.add({"op": "metrics", "run": self.run_id, "step": 0, "time": _now(), "values": finite})

    def set_tags(self, **values: str) -> None:
        """Tags below `clray.`, and `note` for the description that the UI shows."""
        names = {key: "mlflow.note.content" if key == "note" else f"clray.{key}" for key in values}
        self.outbox.add({"op": "tags", "run": self.run_id, "values": {names[k]: v for k, v in values.items()}})

    def set_headline(
        self, text: str, metric: str, file: str, *, clusters: str | None = None, swept: Sequence[str] = ()
    ) -> None:
        """Make `text` what the UI says above the experiment's runs, with links to the artifacts and to all trials.

        Args:
            file: the artifact of the report.
            clusters: the artifact that shows the clusters, where there is one.
            swept: keys of the search space, which are shown beside the metrics.
        """
        entry = {"text": text, "metric": metric, "file": file, "clusters": clusters, "swept": list(swept)}
        self.outbox.add({"op": "headline", "run": self.run_id, **entry})

    def finish(self, status: str = "FINISHED") -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        self._catch_up()
        self.outbox.add({"op": "finish", "run": self.run_id, "status": status, "time": _now()})


def describe_dataset(data: Dataset, config: DataConfig) -> Entry:
    """Name, size, classes and a digest of labels and attributes; reads all of these: once for all trials of a sweep."""
    # As int64, so that the digest stays what it was for data that stayed what they were.
    digest = hashlib.sha256(data.train.labels.astype("<i8").tobytes() + data.test.labels.astype("<i8").tobytes())
    known = {**data.train.columns, **data.train.targets}
    for name in sorted(known):
        digest.update(name.encode() + known[name].astype("<i8").tobytes())
    counts = {"training images": len(data.train), "test images": len(data.test), "classes": data.num_classes}
    if data.validation is not None:
        digest.update(data.validation.labels.tobytes())
        counts["validation images"] = len(data.validation)
    if data.labelled_set is not None:
        digest.update(data.labelled_set.labels.tobytes())
        counts["labelled images"] = len(data.labelled_set)
    return {
        "name": config.name if config.train_path is None else Path(config.train_path).stem,
        "digest": digest.hexdigest()[:16],
        "source": config.train_path or config.name,
        "profile": ", ".join(f"{count} {name}" for name, count in counts.items()),
    }


def _now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return time.time_ns() // 1_000_000


@cache
def _provenance() -> dict[str, str]:
    """User and source as MLflow finds them, commit and branch of the folder the command runs in, versions at work."""
    from mlflow.tracking.context.registry import resolve_tags

    tags = {
        **resolve_tags(),
        "clray.version.python": platform.python_version(),
        "mlflow.source.name": " ".join(["clray", *sys.argv[1:2]]),
    }
    for package in VERSIONED:
        try:
            tags[f"clray.version.{package.partition('-')[0]}"] = version(package)
        except PackageNotFoundError:
            continue
    commit, branch = _git("rev-parse", "HEAD"), _git("symbolic-ref", "-q", "HEAD")
    if commit:
        tags["mlflow.source.git.commit"] = commit
    if branch:  # none where a commit is checked out by itself
        tags["mlflow.source.git.branch"] = branch.removeprefix("refs/heads/")
    return tags


def _git(*arguments: str) -> str:
    """What git says of the folder the command runs in; empty where it is not one of git's."""
    try:
        found = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.stdout.strip()
