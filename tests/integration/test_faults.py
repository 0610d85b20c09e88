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

from clray.train.checkpoint import read_checkpoint
from clray.train.session import read_metrics

pytestmark = pytest.mark.slow
Clray = Callable[..., subprocess.CompletedProcess]
TIMES = ("seconds", "per_second")


def start(config: Path, folder: Path, *arguments: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "clray", "train", str(config), "-o", str(folder), "--json", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ray_process(run: subprocess.Popen, actor: str) -> psutil.Process:
    """The first process of the run's Ray whose title names the actor."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert run.poll() is None, run.communicate()
        for child in psutil.Process(run.pid).children(recursive=True):
            try:
                if actor in " ".join(child.cmdline()):
                    return child
            except psutil.Error:
                continue
        time.sleep(0.02)
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


@pytest.mark.parametrize("actor", ["ShardActor", "KMeansService"])
def test_a_killed_k_means_actor_changes_nothing(
    clray: Clray, tiny_yaml: Callable[..., Path], tmp_path: Path, actor: str
) -> None:
    config = tiny_yaml(train={"num_epochs": 20, "cpus_per_worker": 0.5})
    assert clray("train", config, "-o", tmp_path, "--name", "whole").returncode == 0
    run = start(config, tmp_path, "--name", "cut")
    victim = ray_process(run, actor)
    wait_for_epoch(run, tmp_path / "cut", 5)
    victim.kill()
    _, errors = run.communicate(timeout=180)
    assert run.returncode == 0, errors
    require_equal(tmp_path / "whole", tmp_path / "cut", 20)


def test_a_killed_training_worker_is_replaced_and_changes_nothing(
    clray: Clray, tiny_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    train = {"num_workers": 2, "num_epochs": 30, "cpus_per_worker": 0.5, "checkpoint_every_steps": 2}
    config = tiny_yaml(train=train, clusters={"source": "labels"})
    assert clray("train", config, "-o", tmp_path, "--name", "whole").returncode == 0
    run = start(config, tmp_path, "--name", "cut")
    victim = ray_process(run, "RayTrainWorker")
    wait_for_epoch(run, tmp_path / "cut", 4)
    victim.kill()
    _, errors = run.communicate(timeout=240)
    assert run.returncode == 0, errors
    require_equal(tmp_path / "whole", tmp_path / "cut", 30)


@pytest.mark.parametrize("which", [min, max])
def test_a_worker_that_hangs_is_named(tiny_yaml: Callable[..., Path], tmp_path: Path, which: Callable) -> None:
    train = {
        "num_workers": 2,
        "num_epochs": 5000,
        "cpus_per_worker": 0.5,
        "checkpoint_every_epochs": 5000,
        "timeout_seconds": 5,
        "max_failures": 0,
    }
    run = start(tiny_yaml(train=train, clusters={"source": "labels"}), tmp_path, "--name", "hung")
    workers: dict[int, psutil.Process] = {}
    wait_for_epoch(run, tmp_path / "hung", 2)
    for child in psutil.Process(run.pid).children(recursive=True):
        if "RayTrainWorker" in " ".join(child.cmdline()):
            workers[child.pid] = child
    workers[which(workers)].send_signal(signal.SIGSTOP)
    _, errors = run.communicate(timeout=180)
    assert run.returncode == 1
    assert "did not answer worker" in errors
    assert "Traceback" not in errors


def test_the_driver_is_killed_in_mid_epoch_and_resumed(
    clray: Clray, tiny_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    config = tiny_yaml(train={"num_epochs": 40, "checkpoint_every_steps": 2, "checkpoint_every_epochs": 9})
    assert clray("train", config, "-o", tmp_path, "--name", "whole").returncode == 0
    run = start(config, tmp_path, "--name", "cut")
    wait_for_epoch(run, tmp_path / "cut", 6)
    run.kill()
    run.wait()
    done = clray("train", config, "-o", tmp_path, "--name", "cut", "--resume", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["epoch"] == 40
    require_equal(tmp_path / "whole", tmp_path / "cut", 40)
