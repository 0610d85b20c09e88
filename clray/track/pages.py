"""Addresses in the MLflow UI, and what its pages open with."""

import json
import urllib.parse
from collections.abc import Sequence

from clray.track.mlflow import Store

TRAINING_VIEW = "workflowType=machine_learning"
"""In an address of the UI: the view of training runs; else MLflow 3 opens that of language models."""


def run_page(store: Store, mlflow_id: str) -> str:
    """The address of a run's page, once the UI runs at its usual port or the store is a server."""
    host = store.uri.rstrip("/") if store.uri.startswith(("http://", "https://")) else "http://127.0.0.1:5000"
    return f"{host}/{run_path(store.experiment_id, mlflow_id)}?{TRAINING_VIEW}"


def run_path(experiment_id: str, mlflow_id: str) -> str:
    return f"#/experiments/{experiment_id}/runs/{mlflow_id}"


VIEW = "clray"
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
"""Experiment tag from which the UI takes what an address with `viewStateShareKey` opens with, as its Share button
writes it (MLflow 3)."""
SWEPT = "_swept/"
"""Before the name of a parameter that the search space chose: the UI sorts them by name, and so shows it first."""
PLANE = ("clusters/mutual_information_bits", "clusters/conditional_entropy_bits")


def trials_path(experiment_id: str) -> str:
    """The page that lists all trials of an experiment as `trials_view` says."""
    query = {"viewStateShareKey": VIEW, "compareRunsMode": "CHART"}
    return f"#/experiments/{experiment_id}/runs?{TRAINING_VIEW}&{urllib.parse.urlencode(query)}"


def trials_view(metric: str, swept: Sequence[str]) -> str:
    """All trials, best first: what was swept and what it was worth as columns, and the metric over both axes of the
    information plane as charts."""
    names = [metric, *PLANE]
    section = "clray-answer"
    return json.dumps(
        {
            "searchFilter": "tags.`clray.kind` = 'trial'",
            "orderByKey": f"metrics.`{metric}`",
            "orderByAsc": False,
            "selectedColumns": [*(f"params.`{SWEPT}{key}`" for key in swept), *(f"metrics.`{name}`" for name in names)],
            "runsHiddenMode": "SHOW_ALL",
            "compareRunSections": [
                {"uuid": section, "name": "answer in charts", "display": True, "isReordered": False, "deleted": False,
                 "isGenerated": False},
            ],
            "compareRunCharts": [
                {"type": "SCATTER", "uuid": f"{section}-{number}", "runsCountToCompare": 100,
                 "metricSectionId": section, "deleted": False, "isGenerated": False,
                 "xaxis": {"key": name, "type": "METRIC"}, "yaxis": {"key": metric, "type": "METRIC"}}
                for number, name in enumerate(PLANE)
            ],
        }
    )  # fmt: skip
