"""Processes that are really killed or stopped while a run trains on a real Ray."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch
import yaml
from mlflow import MlflowClient

from clray.training.checkpoint import read_checkpoint
from clray.training.metrics import read_metrics
from tests.conftest import TINY

pytestmark = [pytest.mark.slow, pytest.mark.fault]
Clray = Callable[..., subprocess.CompletedProcess]
TIMES = ("seconds", "per_second")


def start(config: Path, folder: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "clray", "train", str(config), "-o", str(folder), "--json", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ray_process(run: subprocess.Popen, actor: str) -> psutil.Process:
    """The first process of the run's Ray whose title names the actor."""
    deadline = time.monotonic() + 180  # a busy machine takes a minute to start it
    while time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()
        for child in psutil.Process(run.pid).children(recursive=True):
            try:
                if actor in " ".join(child.cmdline()):
                    return child
            except psutil.Error:
                continue
        time.sleep(0.2)  # each look takes longer than a tenth of that
    raise AssertionError(f"no process {actor}")


def wait_for_epoch(run: subprocess.Popen, folder: Path, epoch: int) -> None:
    while len(read_metrics(folder)) < epoch:
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)


def require_equal(whole: Path, disturbed: Path, num_epochs: int) -> None:
    histories = [
        [{key: value for key, value in epoch.items() if not key.endswith(TIMES)} for epoch in read_metrics(folder)]
        for folder in (whole, disturbed)
    ]
    assert [epoch["epoch"] for epoch in histories[1]] == list(range(1, num_epochs + 1))
    assert histories[0] == histories[1]
    first, second = (read_checkpoint(folder)["model"] for folder in (whole, disturbed))
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A config, and the folder of its run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    train = {**TINY["train"], "num_epochs": 20, "checkpoint_every_steps": 2, "checkpoint_every_epochs": 7}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"train": train}), encoding="utf-8")
    _, errors = (run := start(folder / "tiny.yaml", folder, "--name", "whole")).communicate(timeout=400)
    assert run.returncode == 0, errors
    return folder / "tiny.yaml", folder / "whole"


@pytest.mark.parametrize("actor", ["ShardActor", pytest.param("KMeansService", marks=pytest.mark.long)])
def test_a_killed_k_means_actor_changes_nothing(whole: tuple[Path, Path], tmp_path: Path, actor: str) -> None:
    config, undisturbed = whole
    run = start(config, tmp_path, "--name", "cut")
    victim = ray_process(run, actor)
    wait_for_epoch(run, tmp_path / "cut", 5)
    victim.kill()
    _, errors = run.communicate(timeout=400)
    assert run.returncode == 0, errors
    require_equal(undisturbed, tmp_path / "cut", 20)


def test_the_driver_is_killed_in_mid_epoch_and_resumed(whole: tuple[Path, Path], tmp_path: Path) -> None:
    config, undisturbed = whole
    run = start(config, tmp_path, "--name", "cut")
    wait_for_epoch(run, tmp_path / "cut", 6)
    run.kill()
    run.communicate()
    resumed = start(config, tmp_path, "--name", "cut", "--resume")
    printed, errors = resumed.communicate(timeout=400)
    assert resumed.returncode == 0, errors
    assert json.loads(printed)["metrics"]["epoch"] == 20
    require_equal(undisturbed, tmp_path / "cut", 20)
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    (found,) = client.search_runs([client.get_experiment_by_name("clray").experiment_id])
    assert found.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(found.info.run_id, "train/loss")] == list(range(1, 21))


def test_a_killed_training_worker_is_replaced_and_changes_nothing(
    clray: Clray, tiny_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    train = {"num_workers": 2, "num_epochs": 12, "cpus_per_worker": 0.5, "checkpoint_every_steps": 2}
    config = tiny_yaml(train=train, clusters={"source": "labels"})
    assert clray("train", config, "-o", tmp_path, "--name", "whole").returncode == 0
    run = start(config, tmp_path, "--name", "cut")
    victim = ray_process(run, "RayTrainWorker")
    wait_for_epoch(run, tmp_path / "cut", 4)
    victim.kill()
    _, errors = run.communicate(timeout=400)
    assert run.returncode == 0, errors
    require_equal(tmp_path / "whole", tmp_path / "cut", 12)


@pytest.mark.long
def test_a_group_whose_newest_checkpoint_is_cut_goes_on_from_the_one_before(
    tiny_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    train = {"num_workers": 2, "num_epochs": 12, "cpus_per_worker": 0.5}
    config = tiny_yaml(train=train, clusters={"source": "labels"})
    run = start(config, tmp_path, "--name", "cut")
    wait_for_epoch(run, tmp_path / "cut", 6)
    run.kill()
    run.communicate()
    newest = sorted((tmp_path / "cut").glob("workers/checkpoint*/part-00001.pt"))[-1]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    resumed = start(config, tmp_path, "--name", "cut", "--resume")
    _, errors = resumed.communicate(timeout=400)
    assert resumed.returncode == 0, errors
    assert [metrics["epoch"] for metrics in read_metrics(tmp_path / "cut")] == list(range(1, 13))


@pytest.mark.long
def test_a_worker_that_hangs_is_named(tiny_yaml: Callable[..., Path], tmp_path: Path) -> None:
    train = {
        "num_workers": 2,
        "num_epochs": 5000,
        "cpus_per_worker": 0.5,
        "checkpoint_every_epochs": 5000,
        "timeout_seconds": 3,
        "max_failures": 0,
    }
    run = start(tiny_yaml(train=train, clusters={"source": "labels"}), tmp_path, "--name", "hung")
    workers: dict[int, psutil.Process] = {}
    wait_for_epoch(run, tmp_path / "hung", 2)
    for child in psutil.Process(run.pid).children(recursive=True):
        if "RayTrainWorker" in " ".join(child.cmdline()):
            workers[child.pid] = child
    workers[max(workers)].send_signal(signal.SIGSTOP)
    _, errors = run.communicate(timeout=400)
    assert run.returncode == 1
    assert "did not answer worker" in errors
    assert "Traceback" not in errors
