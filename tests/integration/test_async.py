"""Clusters that are computed while two workers train, on a real Ray."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from clray.training.metrics import read_metrics

pytestmark = [pytest.mark.slow, pytest.mark.long]


def test_two_workers_take_over_clusters_that_come_late(
    clray: Callable[..., subprocess.CompletedProcess], tiny_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    """And read the clusters of all images where their node has them once."""
    config = tiny_yaml(
        train={"num_workers": 2, "num_epochs": 12, "cpus_per_worker": 0.5},
        recluster={"mode": "async", "every_steps": 2},
        objective={"name": "tests.training.own_objectives:Sharing"},
        allow_user_modules=True,
    )
    done = clray("train", config, "-o", tmp_path, "--name", "late", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["clusters/num_clusters"] == 6
    metrics = read_metrics(tmp_path / "late")
    assert sum("recluster/inertia" in epoch for epoch in metrics) >= 2
    # The first clustering is waited for; what comes later is only asked for and taken over.
    stalls = [epoch["recluster/stall_seconds"] for epoch in metrics if "recluster/inertia" in epoch]
    assert min(stalls) < stalls[0]
