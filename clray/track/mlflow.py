"""MLflow: a store, and how the entries of an outbox are written to it.

Ray's own MLflow callback is not used: it writes flat runs without a parent and doubles the run of a restored trial
(ray issues 19978, 30649). Here a run is found again by a tag, so a resumed one is continued.
"""

import base64
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clray.config import flatten
from clray.config.sections import TrackingConfig
from clray.errors import UserError
from clray.redaction import hide_credentials
from clray.track.outbox import Entry, Unreachable

STORE_FILE = "mlflow.db"
ID_TAG = "clray.id"
POINT_TAG = "clray.point"
SERVER_TIMEOUT_SECONDS = 5.0
MODEL_NAME = "encoder"
TRAINING_VIEW = "workflowType=machine_learning"
"""In an address of the UI: the view of training runs; else MLflow 3 opens that of language models."""
REFUSALS = {
    "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST", "INVALID_STATE",
    "PERMISSION_DENIED", "UNAUTHENTICATED",
}  # fmt: skip
"""MLflow's codes of requests that no repetition would make good."""
# Where the store is away its entries are kept: what fails is better known soon than tried for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


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
            raise UserError(f"tracking.uri: expected http(s)://... or sqlite:///...; got {hide_credentials(uri)!r}")
        return
    shown = hide_credentials(uri)
    try:
        with urllib.request.urlopen(_health_request(uri), timeout=SERVER_TIMEOUT_SECONDS):
            return
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403):
            raise UserError(f"tracking.uri: {shown} answers, but not as an MLflow server ({error})") from None
        raise UserError(
            f"tracking.uri: the MLflow server at {shown} refuses the name and password ({error}). Correct them in the "
            "address, or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = hide_credentials(str(getattr(error, "reason", error)))
        raise UserError(
            f"tracking.uri: no MLflow server answers at {shown} ({reason}). Start it with `mlflow server`, or leave "
            "out --tracking-uri to record in the output folder"
        ) from None


def _health_request(uri: str) -> urllib.request.Request:
    """The request that asks a server whether it is well, with the password that MLflow itself would send.

    Raises:
        UserError: an address that cannot be read, such as one whose password is not percent-encoded.
    """
    try:
        parts = urllib.parse.urlsplit(uri.rstrip("/"))
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or any(character.isspace() for character in uri):
        raise UserError(
            f"tracking.uri: {hide_credentials(uri)} is no address of a server. Expected http://HOST:PORT; in a "
            "password the characters / ? # @ % and spaces are written %2F %3F %23 %40 %25 %20"
        )
    host = f"[{host}]" if ":" in host else host
    place = parts._replace(netloc=host if port is None else f"{host}:{port}", query="", fragment="")
    request = urllib.request.Request(f"{place.geturl()}/health")
    name = urllib.parse.unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = urllib.parse.unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if name:
        # Unredirected: a redirection to another host does not take the password there.
        encoded = base64.b64encode(f"{name}:{password}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {encoded}")
    return request


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


class StoreWriter:
    """Writes the entries of an outbox; each may be written twice with the same effect as once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.mlflow_ids: dict[str, str] = {}
        self.monitors: dict[str, Any] = {}

    def __call__(self, entry: Entry) -> None:
        """Write one entry.

        Raises:
            Unreachable: the store is away; the entry should be written again later.
        """
        import requests
        from mlflow.exceptions import MlflowException

        try:
            getattr(self, f"_{entry['op']}")(**{key: value for key, value in entry.items() if key != "op"})
        except MlflowException as error:
            if error.error_code in REFUSALS:
                raise
            raise Unreachable(str(error)) from error
        except requests.HTTPError as error:
            if error.response is not None and error.response.status_code < 500:
                raise
            raise Unreachable(str(error)) from error
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Unreachable(str(error)) from error

    def _start(
        self, run: str, name: str, tags: dict[str, str], params: dict[str, str], parent: str | None, time: int,
        system_metrics: bool,
    ) -> None:  # fmt: skip
        from mlflow.entities import Param

        client = self.store.client
        if self._find(run) is None:
            nested = {} if parent is None else {"mlflow.parentRunId": self._mlflow_id(parent)}
            created = client.create_run(
                self.store.experiment_id, start_time=time, run_name=name, tags={ID_TAG: run, **tags, **nested}
            )
            self.mlflow_ids[run] = created.info.run_id
        items = [Param(key, value) for key, value in params.items()]
        for start in range(0, len(items), 100):
            client.log_batch(self._mlflow_id(run), params=items[start : start + 100])
        if system_metrics:
            self._monitor(run)

    def _monitor(self, run: str) -> None:
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        monitor = SystemMetricsMonitor(self._mlflow_id(run), resume_logging=True, tracking_uri=self.store.uri)
        monitor.start()
        self.monitors[run] = monitor

    def _resume(self, run: str) -> None:
        self.store.client.update_run(self._mlflow_id(run), status="RUNNING")

    def _metrics(self, run: str, step: int, time: int, values: dict[str, float]) -> None:
        from mlflow.entities import Metric

        metrics = [Metric(name, value, time, step) for name, value in values.items()]
        self.store.client.log_batch(self._mlflow_id(run), metrics=metrics)

    def _tags(self, run: str, values: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(key, value) for key, value in values.items()]
        self.store.client.log_batch(self._mlflow_id(run), tags=tags)

    def _headline(self, run: str, text: str, metric: str, file: str) -> None:
        """The sentence above the experiment's runs, with what to open next: the answer without a click."""
        experiment_id = self.store.experiment_id
        picture = f"{_run_path(experiment_id, self._mlflow_id(run))}/artifacts/{file}"
        links = f"[Its report]({picture}) · [All trials, best first]({_trials_path(experiment_id, metric)})"
        self.store.client.set_experiment_tag(experiment_id, "mlflow.note.content", f"{links} | **{run}**: {text}")

    def _text(self, run: str, text: str, file: str) -> None:
        self.store.client.log_text(self._mlflow_id(run), text, file)

    def _file(self, run: str, path: str) -> None:
        self.store.client.log_artifact(self._mlflow_id(run), path)

    def _dataset(self, run: str, name: str, digest: str, source: str, profile: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, digest, source_type="local", source=source, profile=profile)
        self.store.client.log_inputs(
            self._mlflow_id(run), [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
        )

    def _model(self, run: str, path: str) -> None:
        client, mlflow_id = self.store.client, self._mlflow_id(run)
        logged = client.search_logged_models([self.store.experiment_id], f"source_run_id = '{mlflow_id}'")
        ready = [model for model in logged if model.name == MODEL_NAME and str(model.status) == "READY"]
        if ready:
            return
        model = client.create_logged_model(self.store.experiment_id, name=MODEL_NAME, source_run_id=mlflow_id)
        client.log_model_artifacts(model.model_id, path)
        client.finalize_logged_model(model.model_id, "READY")
        client.log_artifacts(mlflow_id, path, MODEL_NAME)

    def _finish(self, run: str, status: str, time: int) -> None:
        monitor = self.monitors.pop(run, None)
        if monitor is not None:
            monitor.finish()
        self.store.client.set_terminated(self._mlflow_id(run), status, end_time=time)

    def _mlflow_id(self, run: str) -> str:
        found = self._find(run)
        if found is None:
            raise LookupError(f"no run {run} in {self.store.uri}")
        return found

    def _find(self, run: str) -> str | None:
        if run not in self.mlflow_ids:
            found = self.store.client.search_runs(
                [self.store.experiment_id], f"tags.`{ID_TAG}` = '{run}'", max_results=1
            )
            if not found:
                return None
            self.mlflow_ids[run] = found[0].info.run_id
        return self.mlflow_ids[run]


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
        raise UserError(f"tracking.uri: the MLflow store {hide_credentials(uri)} cannot be used: {error}") from error
    return Store(uri, experiment_id, tracking.experiment)


def ui_command(uri: str) -> str:
    """The command that opens this store in a browser."""
    return uri if uri.startswith(("http://", "https://")) else f"mlflow ui --backend-store-uri {uri}"


def run_page(store: Store, mlflow_id: str) -> str:
    """The address of a run's page, once the UI runs at its usual port or the store is a server."""
    host = store.uri.rstrip("/") if store.uri.startswith(("http://", "https://")) else "http://127.0.0.1:5000"
    return f"{host}/{_run_path(store.experiment_id, mlflow_id)}?{TRAINING_VIEW}"


def _run_path(experiment_id: str, mlflow_id: str) -> str:
    return f"#/experiments/{experiment_id}/runs/{mlflow_id}"


def _trials_path(experiment_id: str, metric: str) -> str:
    """The page that lists all trials of an experiment, best first, with charts."""
    query = {
        "searchFilter": "tags.`clray.kind` = 'trial'",
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": "false",
        "compareRunsMode": "CHART",
    }
    return f"#/experiments/{experiment_id}/runs?{TRAINING_VIEW}&{urllib.parse.urlencode(query)}"
