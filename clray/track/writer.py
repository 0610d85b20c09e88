"""How the entries of an outbox are written to an MLflow store.

Ray's own MLflow callback is not used: it writes flat runs without a parent and doubles the run of a restored trial
(ray issues 19978, 30649). Here a run is found again by a tag, so a resumed one is continued.
"""

from pathlib import Path
from typing import Any

from clray.track.mlflow import ID_TAG, Store
from clray.track.outbox import Entry, Unreachable
from clray.track.pages import run_path, trials_path

MODEL_NAME = "encoder"
OPERATIONS = {"start", "resume", "metrics", "tags", "headline", "text", "file", "dataset", "model", "finish"}
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
        picture = f"{run_path(experiment_id, self._mlflow_id(run))}/artifacts/{file}"
        links = f"[Its report]({picture}) · [All trials, best first]({trials_path(experiment_id, metric)})"
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

    def _model(self, run: str, path: str) -> None:
        self._require_below(Path(path), *Path(path).rglob("*"))
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
