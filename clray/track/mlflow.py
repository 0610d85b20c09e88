"""MLflow: one parent run per sweep, one child per trial, params once, metrics by epoch.

Ray's own MLflow callback is not used: it writes flat runs without a parent and doubles the run of a restored trial
(ray issues 19978, 30649). Here a run is found again by a tag, so a resumed one is continued.
"""

import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clray.config import Config, UserError, dump_yaml, flatten
from clray.sections import TrackingConfig

STORE_FILE = "mlflow.db"
ID_TAG = "clray.id"
POINT_TAG = "clray.point"
SERVER_TIMEOUT_SECONDS = 5.0


def store_uri(tracking: TrackingConfig, output: Path) -> str:
    """The configured store, or an SQLite file in the output folder; absolute, because Ray changes folders."""
    if tracking.uri is None:
        return f"sqlite:///{(output / STORE_FILE).resolve()}"
    return tracking.uri


def existing_store_uri(uri: str | None, output: Path) -> str:
    """Like `store_uri`, for reading.

    Raises:
        UserError: there is no store in the output folder.
    """
    path = output / STORE_FILE
    if uri is None and not path.exists():
        raise UserError(f"{path}: no such MLflow store; give the runs' folder with --output, or --tracking-uri")
    return store_uri(TrackingConfig(uri=uri), output)


def check_server(uri: str) -> None:
    """Raise UserError where a tracking server over HTTP does not answer within a few seconds."""
    if not uri.startswith(("http://", "https://")):
        if "://" not in uri:
            raise UserError(f"tracking.uri: expected http(s)://... or sqlite:///...; got {uri!r}")
        return
    try:
        with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=SERVER_TIMEOUT_SECONDS):
            return
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"tracking.uri: no MLflow server answers at {uri} ({reason}). Start it with `mlflow server`, or leave out "
            "--tracking-uri to record in the output folder"
        ) from error


@dataclass
class Store:
    """An experiment in a tracking store, and the runs written to it from this process."""

    uri: str
    experiment_id: str
    name: str
    _client: Any = field(default=None, repr=False)

    @property
    def client(self) -> Any:
        """The MLflow client, made in the process that uses it."""
        if self._client is None:
            from mlflow import MlflowClient

            self._client = MlflowClient(self.uri)
        return self._client

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_client": None}

    def record_clustering(self, name: str, summary: dict[str, Any], files: list[Path]) -> None:
        """One finished run of a clustering: parameters, inertia per iteration, and files."""
        from mlflow.entities import Metric, Param
        from mlflow.utils.time import get_current_time_millis

        tags = {"clray.kind": "clustering"}
        mlflow_id = self.client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id
        now = get_current_time_millis()
        metrics = [
            Metric(f"kmeans/inertia_{each['num_clusters']}", inertia, now, step)
            for each in summary["granularities"]
            for step, inertia in enumerate(each["inertia_history"], start=1)
        ]
        plain = flatten({key: value for key, value in summary.items() if key != "granularities"})
        params = [Param(key, str(value)) for key, value in plain.items()]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(mlflow_id, metrics=metrics[start : start + 1000])
        self.client.log_batch(mlflow_id, params=params)
        for file in files:
            self.client.log_artifact(mlflow_id, str(file))
        self.client.set_terminated(mlflow_id)

    def start_run(
        self, *, kind: str, run_id: str, name: str, config: Config, parent: str | None = None, point: str | None = None
    ) -> "RunLogger":
        """Create a run, or continue the one with the same `run_id`.

        Args:
            kind: `sweep`, `trial` or `run`.
            run_id: clray's own id, kept in a tag; unique within the experiment.
            parent: MLflow id of the sweep's run.
            point: name of the sweep's point, which all its repeats share.
        """
        found = self.client.search_runs([self.experiment_id], f"tags.`{ID_TAG}` = '{run_id}'", max_results=1)
        if found:
            mlflow_id = found[0].info.run_id
            self.client.update_run(mlflow_id, status="RUNNING")
            history = self.client.get_metric_history(mlflow_id, "train/loss")
            return RunLogger(self, mlflow_id, last_epoch=max((metric.step for metric in history), default=0))

        def swept(key: str) -> bool:
            return kind == "sweep" and any(key in space for space in config.search_space)

        tags = {
            ID_TAG: run_id,
            "clray.kind": kind,
            "clray.cluster_source": "swept" if swept("clusters.source") else config.clusters.source,
            "clray.objective": "swept" if swept("objective.name") else config.objective.name,
        }
        if parent is not None:
            tags["mlflow.parentRunId"] = parent
        if point is not None:
            tags[POINT_TAG] = point
        mlflow_id = self.client.create_run(self.experiment_id, run_name=name, tags=tags).info.run_id
        logger = RunLogger(self, mlflow_id)
        logger.log_params(config)
        self.client.log_text(mlflow_id, dump_yaml(config), "config.yaml")
        return logger


@dataclass
class RunLogger:
    """Writes to one run; pickles, so that it can log from another process."""

    store: Store
    mlflow_id: str
    last_epoch: int = 0
    """Epochs up to this one are recorded already, by the run before it was resumed."""

    def __call__(self, metrics: dict[str, float]) -> None:
        """Log an epoch's metrics at step `epoch`, in one request."""
        from mlflow.entities import Metric
        from mlflow.utils.time import get_current_time_millis

        epoch = int(metrics["epoch"])
        if epoch <= self.last_epoch:
            return
        now = get_current_time_millis()
        values = [Metric(name, value, now, epoch) for name, value in metrics.items() if "/" in name]
        self.store.client.log_batch(self.mlflow_id, metrics=values)
        self.last_epoch = epoch

    def log_params(self, config: Config) -> None:
        from mlflow.entities import Param

        flat = flatten(config.model_dump(mode="json", exclude={"search_space"}))
        params = [Param(key, str(value)) for key, value in flat.items()]
        for start in range(0, len(params), 100):
            self.store.client.log_batch(self.mlflow_id, params=params[start : start + 100])

    def log_file(self, path: Path) -> None:
        self.store.client.log_artifact(self.mlflow_id, str(path))

    def log_best(self, name: str, metrics: dict[str, float], best: "RunLogger") -> None:
        """Record on a sweep's run which trial was best and how good, and mark that trial."""
        self.set_tag("clray.best_trial", name)
        best.set_tag("clray.best", "true")
        for key, value in metrics.items():
            if key.startswith(("eval/", "clusters/")):
                self.store.client.log_metric(self.mlflow_id, f"best/{key}", value)

    def set_tag(self, key: str, value: str) -> None:
        self.store.client.set_tag(self.mlflow_id, key, value)

    def finish(self, status: str = "FINISHED") -> None:
        """End the run as FINISHED, FAILED or KILLED."""
        self.store.client.set_terminated(self.mlflow_id, status)


def open_store(tracking: TrackingConfig, output: Path) -> Store:
    """Create store and experiment if there are none.

    Done once, before any trial: several processes that migrate a fresh SQLite store at once fail.
    """
    uri = store_uri(tracking, output)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(uri)
    try:
        found = client.get_experiment_by_name(tracking.experiment)
        if found is not None:
            return Store(uri, found.experiment_id, tracking.experiment)
        location = None
        if not uri.startswith(("http://", "https://")):
            location = (output / "mlartifacts").resolve().as_uri()
        experiment_id = client.create_experiment(tracking.experiment, artifact_location=location)
    except MlflowException as error:
        raise UserError(f"tracking.uri: the MLflow store {uri} cannot be used: {error}") from error
    return Store(uri, experiment_id, tracking.experiment)


def ui_command(uri: str) -> str:
    """The command that opens this store in a browser."""
    return uri if uri.startswith(("http://", "https://")) else f"mlflow ui --backend-store-uri {uri}"
