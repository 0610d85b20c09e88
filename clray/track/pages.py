"""Addresses in the MLflow UI."""

import urllib.parse

from clray.track.mlflow import Store

TRAINING_VIEW = "workflowType=machine_learning"
"""In an address of the UI: the view of training runs; else MLflow 3 opens that of language models."""


def run_page(store: Store, mlflow_id: str) -> str:
    """The address of a run's page, once the UI runs at its usual port or the store is a server."""
    host = store.uri.rstrip("/") if store.uri.startswith(("http://", "https://")) else "http://127.0.0.1:5000"
    return f"{host}/{run_path(store.experiment_id, mlflow_id)}?{TRAINING_VIEW}"


def run_path(experiment_id: str, mlflow_id: str) -> str:
    return f"#/experiments/{experiment_id}/runs/{mlflow_id}"


def trials_path(experiment_id: str, metric: str) -> str:
    """The page that lists all trials of an experiment, best first, with charts."""
    query = {
        "searchFilter": "tags.`clray.kind` = 'trial'",
        "orderByKey": f"metrics.`{metric}`",
        "orderByAsc": "false",
        "compareRunsMode": "CHART",
    }
    return f"#/experiments/{experiment_id}/runs?{TRAINING_VIEW}&{urllib.parse.urlencode(query)}"
