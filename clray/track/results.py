"""A sweep's trials as an MLflow store holds them."""

from clray.errors import UserError
from clray.report.results import Sweep, TrialResult
from clray.track.mlflow import ID_TAG, POINT_TAG
from clray.track.pages import SWEPT
from clray.track.trial_tables import search_runs, search_trials


def read_sweep(uri: str, sweep: str) -> Sweep:
    """The finished trials of a sweep, by the sweep's name, its MLflow run id, or `latest`.

    Raises:
        UserError: no such sweep in the store, or one without a finished trial.
    """
    from mlflow import MlflowClient
    from mlflow.entities import ViewType
    from mlflow.exceptions import MlflowException

    client = MlflowClient(uri)
    try:
        experiments = [each.experiment_id for each in client.search_experiments(ViewType.ACTIVE_ONLY)]
    except MlflowException as error:
        raise UserError(f"the MLflow store {uri} cannot be read: {error}") from error

    sweeps = search_runs(client, experiments, "tags.`clray.kind` = 'sweep'")
    chosen = [run for run in sweeps if sweep in ("latest", run.info.run_id, run.data.tags.get(ID_TAG))]
    if not chosen:
        known = ", ".join(run.data.tags.get(ID_TAG, run.info.run_id) for run in sweeps[:5]) or "none"
        raise UserError(f"no sweep '{sweep}' in {uri}; the latest there: {known}")
    results = [
        TrialResult(
            run.tags.get(POINT_TAG, run.name),
            int(run.params["seed"]),
            run.metrics,
            {key: value for key, value in run.params.items() if not key.startswith(SWEPT)},
            run.tags.get("clray.state", "finished"),
            run.tags.get("clray.reason"),
        )
        for run in search_trials(client, experiments, chosen[0].info.run_id)
        if run.status == "FINISHED"
    ]
    if not results:
        raise UserError(f"sweep '{sweep}' in {uri} has no finished trial yet; resume the sweep with `resume`")
    parent = chosen[0]
    tags, prefix = parent.data.tags, "untrained/"
    return Sweep(
        tags.get(ID_TAG, parent.info.run_id),
        [each for each in results if each.state != "skipped"],
        tags.get("clray.metric", "eval/linear_accuracy"),
        _count(tags.get("clray.num_images")),
        _count(tags.get("clray.num_test_images")),
        _count(tags.get("clray.num_validation_images")),
        {name.removeprefix(prefix): value for name, value in parent.data.metrics.items() if name.startswith(prefix)},
        [each for each in results if each.state == "skipped"],
    )


def _count(text: str | None) -> int | None:
    """A number of images; None in stores of sweeps that did not record it."""
    return int(text) if text is not None and text.isdigit() else None
