"""A sweep submitted to a cluster's job server: followed, watched, stopped and gone on with."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from clray.ray_runtime.cluster import _is_open
from clray.training.metrics import read_metrics
from tests.conftest import REPOSITORY, TINY

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]
RAY = Path(sys.executable).parent / "ray"
TOKEN = "token-of-the-tests-0123456789abcdef"


@dataclass
class Head:
    """A cluster of one node that only loopback reaches."""

    port: int
    dashboard_port: int
    environment: dict[str, str]

    def call(self, *words: object, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            list(map(str, words)), env=self.environment | environment, capture_output=True, text=True, timeout=timeout,
            check=False, cwd=REPOSITORY,
        )  # fmt: skip


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    port, dashboard_port, agent_port = free_ports(3)
    folder = tempfile.mkdtemp(prefix="rj")  # short: Ray's sockets lie below it
    environment = {
        **os.environ, "PATH": f"{RAY.parent}:{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "COLUMNS": "200", "RAY": str(RAY),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard_port}",
    }  # fmt: skip
    command = [
        RAY, "start", "--head", f"--port={port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard_port}",
        f"--dashboard-agent-listen-port={agent_port}", "--num-cpus=2", f"--temp-dir={folder}", "--disable-usage-stats",
        "--block",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    head = Head(port, dashboard_port, environment)
    deadline = time.monotonic() + 180
    while head.call(RAY, "job", "list").returncode:
        assert time.monotonic() < deadline, "the job server does not answer"
        time.sleep(1)
    yield head
    os.killpg(process.pid, signal.SIGTERM)
    process.wait(60)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Path]:
    """Below the repository, which is what is sent to the cluster."""
    tree = TINY | {
        "clusters": {"source": "labels"},
        "sweep": {"max_concurrent_trials": 1},
        "search_space": {"objective.temperature": {"grid_search": [0.1, 0.5]}},
    }
    path = REPOSITORY / "tune_configs" / f"{tmp_path.name}.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    yield path
    path.unlink()


def test_a_client_without_the_token_is_refused(head: Head, config: Path, tmp_path: Path) -> None:
    done = head.call("scripts/submit.sh", config, STORAGE=str(tmp_path / "out"), RAY_AUTH_TOKEN="another-" + "0" * 32)
    assert done.returncode != 0
    assert "Authentication" in done.stdout + done.stderr or "authentication" in done.stdout + done.stderr
    assert not (tmp_path / "out").exists()


def test_a_command_joins_with_the_token_that_it_has_and_says_where_it_is_another(head: Head) -> None:
    status = (sys.executable, "-m", "clray", "status", f"127.0.0.1:{head.port}")
    done = head.call(*status, RAY_AUTH_MODE="")
    assert (done.returncode, done.stdout) == (0, "no sweep is running\n"), done.stderr
    done = head.call(*status, RAY_AUTH_MODE="", RAY_AUTH_TOKEN="another-" + "0" * 32)
    assert done.returncode == 2
    assert f"RAY_ADDRESS=127.0.0.1:{head.port}: no Ray cluster can be joined there" in done.stderr
    assert "set RAY_AUTH_TOKEN" in done.stderr
    assert "Traceback" not in done.stderr
    assert not _is_open(f"http://127.0.0.1:{head.dashboard_port}/api/version")


def test_a_stopped_job_leaves_a_sweep_that_goes_on(head: Head, config: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    options = ("--name", "s", "--set", "train.num_epochs=300")
    submitted = subprocess.Popen(
        ["scripts/submit.sh", str(config), *options], cwd=REPOSITORY, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=head.environment | {"STORAGE": str(output), "JOB_ID": f"job-{tmp_path.name}"},
    )  # fmt: skip
    while len(read_metrics(output / "s" / "trials" / "0000")) < 8:
        assert submitted.poll() is None, submitted.communicate()
        time.sleep(0.1)
    shown = head.call(sys.executable, "-m", "clray", "status", f"127.0.0.1:{head.port}", "--json")
    (running,) = json.loads(shown.stdout)
    assert (running["sweep"], running["trials"], running["running"], running["pending"]) == ("s", 2, 1, 1)

    stopped = head.call(RAY, "job", "stop", f"job-{tmp_path.name}")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    submitted.communicate(timeout=180)
    client = MlflowClient(f"sqlite:///{output}/mlflow.db")

    def statuses() -> dict[str, str]:
        runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
        return {run.data.tags["clray.id"]: run.info.status for run in runs}

    assert statuses() == {"s": "KILLED", "s/0": "KILLED"}
    kept = read_metrics(output / "s" / "trials" / "0000")

    done = head.call("scripts/submit.sh", config, *options, "--resume", STORAGE=str(output))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[2/2] t=0.5: eval/linear_accuracy" in done.stdout, "its log is followed"
    assert TOKEN not in done.stdout + done.stderr
    assert "open to its network" not in done.stdout
    assert statuses() == {"s": "FINISHED", "s/0": "FINISHED", "s/1": "FINISHED"}
    metrics = read_metrics(output / "s" / "trials" / "0000")
    assert [each["epoch"] for each in metrics] == list(range(1, 301))
    assert metrics[:8] == kept[:8], "its epochs so far were not trained again"
    assert (
        json.loads(head.call(sys.executable, "-m", "clray", "status", f"127.0.0.1:{head.port}", "--json").stdout) == []
    )
