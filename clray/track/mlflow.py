"""An MLflow store and the experiment in it: where it is, whether it can be used, and what was deleted in it."""

import base64
import http.client
import os
import shlex
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
from clray.track.store_file import check_store_file, is_finished, make_store_file, sqlite_path, sqlite_uri

STORE_FILE = "mlflow.db"
URI_VARIABLE, EXPERIMENT_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
DEFAULT_EXPERIMENT = "clray"
ID_TAG = "clray.id"
POINT_TAG = "clray.point"
SERVER_TIMEOUT_SECONDS = 5.0
# Entries are kept while the store cannot be reached: fail soon instead of trying for minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")


def store_uri(tracking: TrackingConfig, output: Path) -> str:
    """The configured store, that of the environment, or an SQLite file in the output folder.

    The file's address is absolute, because Ray changes folders.
    """
    uri = tracking.uri or os.environ.get(URI_VARIABLE)
    return uri or sqlite_uri((output / STORE_FILE).resolve())


def experiment_name(tracking: TrackingConfig) -> str:
    """The configured experiment, that of the environment, or `clray`."""
    return tracking.experiment or os.environ.get(EXPERIMENT_VARIABLE) or DEFAULT_EXPERIMENT


def _setting_of(uri: str) -> str:
    """What named this store, as messages call it."""
    return URI_VARIABLE if uri == os.environ.get(URI_VARIABLE) else "tracking.uri"


def existing_store_uri(uri: str | None, output: Path) -> str:
    """Like `store_uri`, for reading.

    Raises:
        UserError: there is no store in the output folder, or a damaged one.
    """
    path = output / STORE_FILE
    uri = uri or os.environ.get(URI_VARIABLE)
    if uri is None:
        check_store_file(path, for_writing=False)
    if uri is None and not is_finished(path):
        raise UserError(
            f"{path}: no such MLflow store; give the runs' folder as `output`, or the store as `tracking_uri`"
        )
    return store_uri(TrackingConfig(uri=uri), output)


def check_server(uri: str) -> None:
    """Raise UserError where a tracking server does not answer within a few seconds, or a store's file is unusable."""
    path = sqlite_path(uri)
    if path is not None:
        check_store_file(path, for_writing=False)
    if not uri.startswith(("http://", "https://")):
        if "://" not in uri:
            raise UserError(
                f"{_setting_of(uri)}: expected http(s)://... or sqlite:///...; got {hide_credentials(uri)!r}"
            )
        return
    shown, setting = hide_credentials(uri), _setting_of(uri)
    request = _health_request(uri)
    try:
        with urllib.request.urlopen(request, timeout=SERVER_TIMEOUT_SECONDS):
            return
    except urllib.error.HTTPError as error:
        error.close()
        if error.code not in (401, 403):
            raise UserError(f"{setting}: {shown} answers, but not as an MLflow server ({error})") from None
        raise UserError(
            f"{setting}: the MLflow server at {shown} refuses the name and password ({error}). Correct them in the "
            "address, or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = hide_credentials(str(getattr(error, "reason", error)))
        raise UserError(
            f"{setting}: no MLflow server answers at {shown} ({reason}). Start it with `mlflow server`, or leave "
            "the address out to record in the output folder"
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
            f"{_setting_of(uri)}: {hide_credentials(uri)} is no address of a server. Expected http://HOST:PORT; in a "
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


def open_store(tracking: TrackingConfig, output: Path) -> Store:
    """Create store and experiment if there are none.

    Done once, before any trial: several processes that migrate a fresh SQLite store at once fail.

    Raises:
        UserError: the store cannot be used, or the experiment was deleted in MLflow.
    """
    uri, name = store_uri(tracking, output), experiment_name(tracking)
    path = sqlite_path(uri)
    if path is not None:
        make_store_file(path)
    location = None
    if not uri.startswith(("http://", "https://")):
        location = (output / "mlartifacts").resolve().as_uri()
    from mlflow import MlflowClient

    try:
        experiment_id = _experiment_id(MlflowClient(uri), name, location, uri)
    except UserError:
        raise
    except Exception as error:  # of MLflow, SQLAlchemy, Alembic or a driver of the database
        shown = hide_credentials(uri)
        raise UserError(
            f"{_setting_of(uri)}: the MLflow store {shown} cannot be used: {error}. Where another version of MLflow "
            f"made it, keep a copy and run `mlflow db upgrade {shown}`; or choose another {_setting_of(uri)}"
        ) from error
    return Store(uri, experiment_id, name)


def _experiment_id(client: Any, name: str, location: str | None, uri: str) -> str:
    """The experiment's id; it is made where there is none."""
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            found = client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise  # else another command made it meanwhile
    if found.lifecycle_stage == "deleted":
        shown = hide_credentials(uri)
        raise UserError(
            f"tracking.experiment: '{name}' was deleted in MLflow, and nothing can be recorded in it. Restore it with "
            f"`MLFLOW_TRACKING_URI={shown} mlflow experiments restore --experiment-id {found.experiment_id}`, or "
            "choose another name"
        )
    return str(found.experiment_id)


def require_not_deleted(store: Store, run_ids: set[str]) -> None:
    """Raise UserError where one of clray's runs was deleted in MLflow; what is written to it would be lost.

    A store that cannot be reached is not asked.
    """
    deleted = [run for run in _deleted_runs(store) if run.data.tags.get(ID_TAG) in run_ids]
    if deleted:
        names = ", ".join(run.data.tags[ID_TAG] for run in deleted[:3]) + (", ..." if len(deleted) > 3 else "")
        commands = "; ".join(f"mlflow runs restore --run-id {run.info.run_id}" for run in deleted[:3])
        raise UserError(
            f"{len(deleted)} of the runs to continue were deleted in MLflow ({names}). Restore them with "
            f"MLFLOW_TRACKING_URI={hide_credentials(store.uri)}: {commands}; or start a new run under another name"
        )


def _deleted_runs(store: Store) -> list[Any]:
    from mlflow.entities import ViewType
    from mlflow.exceptions import MlflowException

    found: list[Any] = []
    token = None
    try:
        while True:
            page = store.client.search_runs(
                [store.experiment_id], run_view_type=ViewType.DELETED_ONLY, page_token=token
            )
            found += page
            token = page.token
            if not token:
                return found
    except MlflowException:
        return []


def ui_command(uri: str) -> str:
    """The command that opens this store in a browser."""
    if uri.startswith(("http://", "https://")):
        return uri
    return shlex.join(["mlflow", "ui", "--backend-store-uri", uri])
