"""`clray cluster` as a user runs it."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from clray.cli.cluster import resumable

Clray = Callable[..., subprocess.CompletedProcess]


@pytest.mark.slow
def test_vectors_are_clustered_on_their_own(clray: Clray, tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    done = clray("cluster", tmp_path / "v.npy", "-k", 12, "--shards", 3, "-o", tmp_path / "c", "--json",
                 "--cpus-per-shard", 0.2)  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    ids, centroids = (np.load(tmp_path / "c" / name) for name in ("assignments.npy", "centroids.npy"))
    distances = ((vectors[:, None].astype(np.float64) - centroids[None]) ** 2).sum(-1)
    np.testing.assert_array_equal(ids, distances.argmin(1))
    assert summary["granularities"][0]["inertia"] == pytest.approx(distances.min(1).sum(), rel=1e-5)
    again = clray("cluster", tmp_path / "v.npy", "-k", 12, "-o", tmp_path / "c")
    assert again.returncode == 2
    assert "is not empty; choose another folder" in again.stderr
    for wrong in (("-k", 401), ("-k", "many"), ("-k", 5, "--levels", "5,2"), ("--levels", "5,50"), ()):
        assert clray("cluster", tmp_path / "v.npy", *wrong, "-o", tmp_path / "d").returncode == 2


@pytest.mark.slow
def test_a_killed_clustering_goes_on_to_the_same_centroids(clray: Clray, tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(30_000, 32)).astype(np.float32))
    command = ["cluster", tmp_path / "v.npy", "-k", "300", "--num-iterations", "150", "--tolerance", "0", "--local"]
    assert clray(*command, "-o", tmp_path / "whole").returncode == 0
    process = subprocess.Popen([sys.executable, "-m", "clray", *map(str, command), "-o", str(tmp_path / "cut")])
    while not (tmp_path / "cut" / "state.npz").exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert clray(*command, "-o", tmp_path / "cut").returncode == 2
    assert clray(*command, "-o", tmp_path / "cut", "--resume").returncode == 0
    whole, cut = (np.load(tmp_path / name / "centroids.npy") for name in ("whole", "cut"))
    np.testing.assert_array_equal(whole, cut)


@pytest.mark.slow
def test_nested_clusters_of_a_folder_train_a_run(clray: Clray, tiny_yaml: Callable[..., Path], tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.random.default_rng(0).normal(size=(96, 8)).astype(np.float32))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    done = clray("cluster", tmp_path / "v.npy", "--levels", "20,5", "--local", "-o", tmp_path / "c",
                 "--tracking-uri", uri)  # fmt: skip
    assert done.returncode == 0, done.stderr
    client = MlflowClient(uri)
    (run,) = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert run.data.tags["clray.kind"] == "clustering"
    assert {"kmeans/inertia_20", "kmeans/inertia_5"} <= run.data.metrics.keys()
    clusters = {"source": "clustering", "path": str(tmp_path / "c"), "num_clusters": 20}
    path = tiny_yaml(clusters=clusters, output=str(tmp_path / "out"))
    done = clray("train", path, "--set", "clusters.num_clusters=5", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["clusters/num_clusters"] == 5
    wrong = clray("train", path, "--set", "clusters.num_clusters=7")
    assert wrong.returncode == 2
    assert "holds clusters for K = 20, 5; got 7" in wrong.stderr


@pytest.mark.parametrize("has_state", [False, True])
def test_resume_is_told_only_where_there_is_something_to_resume(
    has_state: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if has_state:
        (tmp_path / "state.npz").touch()
    with pytest.raises(KeyboardInterrupt), resumable(tmp_path, "state.npz"):
        raise KeyboardInterrupt
    assert ("--resume" in capsys.readouterr().err) == has_state
