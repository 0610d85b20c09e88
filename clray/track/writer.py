"""How the entries of an outbox are written to an MLflow store.

Ray's own MLflow callback is not used: it writes flat runs without a parent and doubles the run of a restored trial
(ray issues 19978, 30649). Here a run is found again by a tag, so a resumed one is continued.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clray.track.entries import Entry
from clray.track.mlflow import ID_TAG, Store
from clray.track.outbox import Unreachable
from clray.track.pages import VIEW_TAG, run_path, trials_path, trials_view

MODEL_NAME, CHAMPION = "encoder", "champion"
OPERATIONS = {
    "start", "resume", "metrics", "tags", "values", "headline", "text", "file", "dataset", "model", "register",
    "finish",
}  # fmt: skip
MOST_METRICS, MOST_OTHERS = 800, 100
"""Of a request: metrics, tags and parameters together 1,000; tags and parameters 100 each."""
REFUSALS = {
    "INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST", "INVALID_STATE",
    "PERMISSION_DENIED", "UNAUTHENTICATED",
}  # fmt: skip
"""MLflow's codes of requests that no repetition would make good."""


class StoreWriter:
    """Writes the entries of an outbox; each may be written twice with the same effect as once."""

    def __init__(self, store: Store, root: Path) -> None:
        """Args: `root` is the outbox's folder; what lies outside it is not uploaded, whoever wrote the outbox."""
        self.store, self.root = store, root.resolve()
        self.mlflow_ids: dict[str, str] = {}
        self.monitors: dict[str, Any] = {}

    def __call__(self, entry: Entry) -> None:
        """Write one entry.

        Raises:
            Unreachable: the store cannot be reached; the entry should be written again later.
        """
        import requests
        from mlflow.exceptions import MlflowException

        operation = entry.get("op")
        if operation not in OPERATIONS:
            raise ValueError("this line of the outbox is damaged")
        try:
            getattr(self, f"_{operation}")(**{key: value for key, value in entry.items() if key != "op"})
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
        system_metrics: bool, metrics: Sequence[dict[str, Any]] = (), later_tags: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        client = self.store.client
        if self._find(run) is None:
            nested = {} if parent is None else {"mlflow.parentRunId": self._mlflow_id(parent)}
            created = client.create_run(
                self.store.experiment_id, start_time=time, run_name=name, tags={ID_TAG: run, **tags, **nested}
            )
            self.mlflow_ids[run] = created.info.run_id
        self._values(run, metrics, later_tags or {}, params)
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
        self._values(run, [{"step": step, "time": time, "values": values}], {})

    def _tags(self, run: str, values: dict[str, str]) -> None:
        self._values(run, [], values)

    def _values(
        self, run: str, metrics: Sequence[dict[str, Any]], later_tags: dict[str, str],
        params: dict[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Metrics of any number of epochs, tags and parameters, in as few requests as MLflow allows."""
        from mlflow.entities import Metric, Param, RunTag

        measured = [
            Metric(name, value, each["time"], each["step"])
            for each in metrics
            for name, value in each["values"].items()
        ]
        tags = [RunTag(key, value) for key, value in later_tags.items()]
        settings = [Param(key, value) for key, value in (params or {}).items()]
        counts = ((len(measured), MOST_METRICS), (len(tags), MOST_OTHERS), (len(settings), MOST_OTHERS))
        for number in range(max(math.ceil(count / most) for count, most in counts)):
            others = slice(number * MOST_OTHERS, (number + 1) * MOST_OTHERS)
            self.store.client.log_batch(
                self._mlflow_id(run),
                metrics=measured[number * MOST_METRICS : (number + 1) * MOST_METRICS],
                tags=tags[others],
                params=settings[others],
            )

    def _headline(
        self, run: str, text: str, metric: str, file: str, clusters: str | None = None, swept: Sequence[str] = ()
    ) -> None:
        """The sentence above the experiment's runs, with what to open next: the answer without a click."""
        experiment_id = self.store.experiment_id
        self.store.client.set_experiment_tag(experiment_id, VIEW_TAG, trials_view(metric, swept))
        artifacts = f"{run_path(experiment_id, self._mlflow_id(run))}/artifacts"
        links = f"[Its report]({artifacts}/{file}) · "
        if clusters is not None:
            links += f"[Its clusters]({artifacts}/{clusters}) · "
        links += f"[All trials, best first]({trials_path(experiment_id)})"
        self.store.client.set_experiment_tag(experiment_id, "mlflow.note.content", f"{links} | **{run}**: {text}")

    def _text(self, run: str, text: str, file: str) -> None:
        self.store.client.log_text(self._mlflow_id(run), text, file)

    def _file(self, run: str, path: str) -> None:
        self._require_below(Path(path))
        self.store.client.log_artifact(self._mlflow_id(run), path)

    def _dataset(self, run: str, name: str, digest: str, source: str, profile: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(name, digest, source_type="local", source=source, profile=profile)
        self.store.client.log_inputs(
            self._mlflow_id(run), [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
        )

    def _model(
        self, run: str, path: str, step: int = 0, time: int | None = None, values: dict[str, float] | None = None
    ) -> None:
        """The run's model, its output, with the metrics of its epoch, by which the Models page ranks it."""
        from mlflow.entities import LoggedModelOutput, Metric

        self._require_below(Path(path), *Path(path).rglob("*"))
        client, mlflow_id = self.store.client, self._mlflow_id(run)
        if self._logged_model(mlflow_id) is not None:
            return
        model = client.create_logged_model(self.store.experiment_id, name=MODEL_NAME, source_run_id=mlflow_id)
        client.log_model_artifacts(model.model_id, path)
        client.log_outputs(mlflow_id, [LoggedModelOutput(model.model_id, step)])
        if values and time is not None:
            # Of the time at which the run logged them: there they stay one entry.
            linked = [Metric(name, value, time, step, model_id=model.model_id) for name, value in values.items()]
            client.log_batch(mlflow_id, metrics=linked)
        client.finalize_logged_model(model.model_id, "READY")
        client.log_artifacts(mlflow_id, path, MODEL_NAME)

    def _logged_model(self, mlflow_id: str) -> str | None:
        """The id of the run's model, once that is whole."""
        logged = self.store.client.search_logged_models(
            [self.store.experiment_id], f"source_run_id = '{mlflow_id}'"
        )  # fmt: skip
        ready = [model for model in logged if model.name == MODEL_NAME and str(model.status) == "READY"]
        return ready[0].model_id if ready else None

    def _register(self, run: str, name: str) -> None:
        """The run's model as a version of the registered one, which gets the alias `champion`."""
        from mlflow.exceptions import MlflowException

        client, mlflow_id = self.store.client, self._mlflow_id(run)
        model_id = self._logged_model(mlflow_id)
        if model_id is None:
            raise LookupError(f"run {run} has no model that could be registered as {name}")
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        known = [each for each in client.search_model_versions(f"name = '{name}'") if each.run_id == mlflow_id]
        if known:
            version = known[0].version
        else:
            # An address `models:/ID` would be looked up in the store of the environment.
            source = client.get_logged_model(model_id).artifact_location
            version = client.create_model_version(name, source, run_id=mlflow_id, model_id=model_id).version
        client.set_registered_model_alias(name, CHAMPION, version)

    def _finish(self, run: str, status: str, time: int) -> None:
        monitor = self.monitors.pop(run, None)
        if monitor is not None:
            monitor.finish()
        self.store.client.set_terminated(self._mlflow_id(run), status, end_time=time)

    def _require_below(self, *paths: Path) -> None:
        outside = [path for path in paths if not path.resolve().is_relative_to(self.root)]
        if outside:
            raise ValueError(f"{outside[0]} lies outside {self.root}")

    def knows(self, run: str) -> bool:
        """Whether the store has a run, as far as it can be asked; one that cannot be reached may have it."""
        from mlflow.exceptions import MlflowException

        try:
            return self._find(run) is not None
        except (MlflowException, OSError):
            return True

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
