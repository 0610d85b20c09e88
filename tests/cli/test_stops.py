"""Whatever stops a command, its runs are ended in MLflow, and it says how to resume; in real processes."""

import fcntl
import os
import pty
import signal
import termios
import time
from collections.abc import Callable
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from clray.training.metrics import read_metrics
from tests.commands import PROCESSES, become_command

pytestmark = [pytest.mark.slow, pytest.mark.fault]
TinyYaml = Callable[..., Path]


class Command:
    """A command under way, its stdout and stderr in files or behind a terminal."""

    def __init__(self, folder: Path, *arguments: object, terminal: str | None = None, stdout: int | None = None):
        self.error = folder / "stderr"
        with (folder / "stdout").open("wb") as out, self.error.open("wb") as error:
            out_fd = out.fileno() if stdout is None else stdout
            handed = [DupFd(each) for each in (out_fd, error.fileno())]
            self.process = PROCESSES.Process(
                target=_detached, args=([str(each) for each in arguments], *handed, terminal)
            )
            self.process.start()

    def end(self) -> tuple[int | None, str]:
        self.process.join(120)
        return self.process.exitcode, self.error.read_text()


def _detached(arguments: list[str], output: Any, error: Any, terminal: str | None) -> None:
    os.setsid()
    streams = output.detach(), error.detach()
    if terminal is not None:
        streams = (os.open(terminal, os.O_RDWR),) * 2
        fcntl.ioctl(streams[0], termios.TIOCSCTTY, 0)
    become_command(arguments, os.environ, *streams)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def statuses(folder: Path) -> dict[str, str]:
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return {run.data.tags["clray.id"]: run.info.status for run in runs}


def long_run(tiny_yaml: TinyYaml, folder: Path) -> list[object]:
    config = tiny_yaml(clusters={"source": "labels"}, train={"num_epochs": 5000, "checkpoint_every_epochs": 50})
    return ["train", config, "--output", folder, "--name", "run"]


@pytest.mark.parametrize(
    ("signals", "code"),
    [([signal.SIGTERM], 143), ([signal.SIGHUP], 129), ([signal.SIGINT, signal.SIGINT], 130)],
    ids=["SIGTERM", "SIGHUP", "SIGINT twice"],
)
def test_a_run_that_is_stopped_is_killed_in_mlflow_and_says_how_to_resume(
    signals: list[int], code: int, tiny_yaml: TinyYaml, tmp_path: Path
) -> None:
    command = Command(tmp_path, *long_run(tiny_yaml, tmp_path / "out"))
    wait_for(lambda: read_metrics(tmp_path / "out" / "run"))
    for number in signals:
        os.kill(command.process.pid, number)
        time.sleep(0.03)
    exit_code, said = command.end()
    assert exit_code == code
    assert "Resume with: clray train" in said
    assert statuses(tmp_path / "out") == {"run": "KILLED"}


def test_a_run_whose_terminal_goes_away_is_killed_in_mlflow(tiny_yaml: TinyYaml, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    command = Command(tmp_path, *long_run(tiny_yaml, tmp_path / "out"), terminal=os.ttyname(slave))
    wait_for(lambda: read_metrics(tmp_path / "out" / "run"))
    os.close(slave)
    os.close(master)
    assert command.end()[0] == 129
    assert statuses(tmp_path / "out") == {"run": "KILLED"}


@pytest.mark.long
def test_a_sweep_whose_output_nobody_reads_is_concluded_and_says_how_to_resume(
    tiny_yaml: TinyYaml, tmp_path: Path
) -> None:
    space = {"objective.temperature": {"grid_search": [0.1 + 0.01 * i for i in range(40)]}}
    config = tiny_yaml(space, clusters={"source": "labels"}, train={"num_epochs": 40})
    reader, writer = os.pipe()
    command = Command(tmp_path, "sweep", config, "--output", tmp_path / "out", "--name", "s", stdout=writer)
    os.close(writer)
    wait_for(lambda: list((tmp_path / "out").glob("s/trials/*/outcome.json")))
    os.close(reader)
    code, said = command.end()
    assert code == 128 + signal.SIGPIPE
    assert "Resume with: clray sweep" in said
    assert (tmp_path / "out" / "s" / "results.json").exists()
    found = statuses(tmp_path / "out")
    assert found.pop("s") == "KILLED"
    assert set(found.values()) <= {"KILLED", "FINISHED"}
