"""Runs in a real store: SQLite, and a server over HTTP that goes away and comes back."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from clray.config import Config
from clray.config.sections import TrackingConfig
from clray.data.load import load_dataset
from clray.track.mlflow import StoreWriter, open_store
from clray.track.outbox import read_entries
from clray.track.results import read_sweep
from clray.track.runs import Tracker
from clray.training.workers.session import append_metrics, read_metrics

pytestmark = pytest.mark.slow
MakeConfig = Callable[..., Config]


def record_sweep(tracker: Tracker, config: Config, num_epochs: int = 3) -> None:
    """A sweep of two trials, as the driver records it."""
    parent = tracker.start_run(kind="sweep", run_id="s", name="s", config=config)
    parent.log_dataset(load_dataset(config.data), config.data)
    for index in range(2):
        run_id, point = f"s/{index}", f"k={index}"
        trial = tracker.start_run(kind="trial", run_id=run_id, name=point, config=config, parent="s", point=point)
        for epoch in range(1, num_epochs + 1):
            trial({"epoch": epoch, "train/loss": 1 / epoch, "eval/linear_accuracy": index / 10 + epoch / 100})
        trial.set_tags(state="finished")
        trial.finish()
    parent.set_tags(note="two sentences", best_trial="k=1")
    parent.finish()


def contents(uri: str) -> dict[str, tuple]:
    """By clray's id: all that must not differ however often an entry was written."""
    client = MlflowClient(uri)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    found = {}
    for run in runs:
        history = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "train/loss")]
        tags = {key: value for key, value in run.data.tags.items() if key.startswith("clray.") or "note" in key}
        inputs = [each.dataset.digest for each in run.inputs.dataset_inputs]
        assert tags["clray.id"] not in found, "a run is doubled"
        found[tags["clray.id"]] = (run.info.status, run.data.params, tags, sorted(history), inputs)
    return found


def test_every_entry_may_be_written_twice(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config()
    stores = [
        open_store(TrackingConfig(), tmp_path / name) for name in ("once", "twice") if not (tmp_path / name).mkdir()
    ]
    tracker = Tracker(stores[0], tmp_path / "sweep")
    record_sweep(tracker, config)
    assert tracker.close(wait_seconds=5) == 0
    writer = StoreWriter(stores[1])
    for entry in read_entries(tmp_path / "sweep"):
        writer(entry)
        StoreWriter(stores[1])(entry)  # as after a kill, by a process that knows nothing of the first
    once, twice = (contents(store.uri) for store in stores)
    assert once == twice
    assert set(once) == {"s", "s/0", "s/1"}
    assert once["s/1"][3] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    sweep = read_sweep(stores[1].uri, "s")
    assert [trial.point for trial in sweep.trials] == ["k=0", "k=1"]


def test_a_resumed_run_is_continued_from_the_epoch_that_is_recorded(tiny_config: MakeConfig, tmp_path: Path) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    for epochs in ((1, 2), (1, 2, 3)):
        tracker = Tracker(store, tmp_path / "run")
        logger = tracker.start_run(kind="run", run_id="r", name="r", config=tiny_config())
        for epoch in epochs:
            logger({"epoch": epoch, "train/loss": float(epoch)})
        logger.finish("FINISHED" if len(epochs) == 3 else "KILLED")
        assert tracker.close(wait_seconds=5) == 0
    (run,) = contents(store.uri).values()
    assert run[0] == "FINISHED"
    assert run[3] == [(1, 1.0), (2, 2.0), (3, 3.0)]


def test_epochs_that_a_killed_driver_never_heard_of_are_recorded_when_the_run_goes_on(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    """The trial wrote epochs 2, 3 and 5 down; the driver was killed, and once more at the end, before it knew."""
    store = open_store(TrackingConfig(), tmp_path)
    folder = tmp_path / "trial"
    for heard, written in (((1,), (1, 2, 3)), ((4,), (4, 5))):
        tracker = Tracker(store, tmp_path / "sweep")
        logger = tracker.start_run(kind="trial", run_id="s/0", name="k=0", config=tiny_config(), folder=folder)
        for epoch in written:
            append_metrics(folder, {"epoch": epoch, "train/loss": float(epoch)})
            if epoch in heard:
                logger(read_metrics(folder)[-1])
        if heard == (4,):
            logger.finish()
        assert tracker.close(wait_seconds=5) == 0
    (run,) = contents(store.uri).values()
    assert run[3] == [(epoch, float(epoch)) for epoch in range(1, 6)]


def test_runs_that_are_open_are_ended_and_those_that_are_over_left_alone(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    for resumed in (False, True):
        tracker = Tracker(store, tmp_path / "sweep")
        runs = [tracker.start_run(kind="trial", run_id=f"s/{i}", name=f"k={i}", config=tiny_config()) for i in range(2)]
        runs[0].finish("FAILED")
        tracker.end_open("KILLED")
        assert tracker.close(wait_seconds=5) == 0
        assert [run[0] for _, run in sorted(contents(store.uri).items())] == ["FAILED", "KILLED"], resumed


def test_the_address_of_the_store_is_not_among_what_is_recorded(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(tracking={"uri": "http://user:secret@127.0.0.1:9"})
    tracker = Tracker(open_store(TrackingConfig(), tmp_path), tmp_path / "run")
    tracker.start_run(kind="run", run_id="r", name="r", config=config)
    tracker.close(wait_seconds=5)
    assert "secret" not in (tmp_path / "run" / "mlflow.outbox.jsonl").read_text()


class Server:
    """An MLflow server on a port of its own, over one database."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri, self.folder = f"http://127.0.0.1:{self.port}", folder
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder}/server.db",
            "--artifacts-destination", str(self.folder / "a"),
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            except OSError:
                time.sleep(0.3)
        raise AssertionError("the server does not come up")

    def kill(self) -> None:
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.mark.fault
def test_a_server_that_goes_away_for_a_while_misses_nothing(tiny_config: MakeConfig, tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.start()
    try:
        store = open_store(TrackingConfig(uri=server.uri), tmp_path)
        tracker = Tracker(store, tmp_path / "sweep")
        logger = tracker.start_run(kind="run", run_id="r", name="r", config=tiny_config())
        for epoch in range(1, 41):
            if epoch == 10:
                server.kill()
            if epoch == 30:
                server.start()
            logger({"epoch": epoch, "train/loss": float(epoch)})
            time.sleep(0.05)
        (tmp_path / "picture.png").write_bytes(b"png")
        logger.log_file(tmp_path / "picture.png")
        logger.finish()
        assert tracker.close(wait_seconds=60) == 0
        (run,) = contents(server.uri).values()
        assert run[3] == [(epoch, float(epoch)) for epoch in range(1, 41)]
        client = MlflowClient(server.uri)
        (found,) = client.search_runs([store.experiment_id])
        assert "picture.png" in {file.path for file in client.list_artifacts(found.info.run_id)}
        server.kill()
        tracker = Tracker(store, tmp_path / "other")
        tracker.start_run(kind="run", run_id="x", name="x", config=tiny_config())
        assert tracker.close(wait_seconds=0.5) == 2, "the entries of a server that stays away are kept"
    finally:
        server.kill()
