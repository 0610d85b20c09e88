"""Runs in a real store: SQLite, and a server over HTTP that goes away and comes back."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy
from mlflow import MlflowClient
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from clray.config import Config, override
from clray.config.sections import TrackingConfig
from clray.data.load import load_dataset
from clray.errors import UserError
from clray.track.entries import OUTBOX_FILE, read_entries
from clray.track.mlflow import check_server, existing_store_uri, open_store, store_uri
from clray.track.outbox import REFUSED_FILE
from clray.track.results import read_sweep
from clray.track.runs import Tracker, describe_dataset
from clray.track.trial_tables import _engine_of, search_runs, search_trials
from clray.track.writer import StoreWriter
from clray.training.metrics import append_metrics, read_metrics

pytestmark = pytest.mark.slow
MakeConfig = Callable[..., Config]


def record_sweep(tracker: Tracker, config: Config, num_epochs: int = 3) -> None:
    """A sweep of two trials, as the driver records it."""
    parent = tracker.start_run(kind="sweep", run_id="s", name="s", config=config)
    parent.log_dataset(describe_dataset(load_dataset(config.data), config.data))
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
    writer = StoreWriter(stores[1], tmp_path)
    for entry in read_entries(tmp_path / "sweep"):
        writer(entry)
        StoreWriter(stores[1], tmp_path)(entry)  # as after a kill, by a process that knows nothing of the first
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


def test_a_store_that_knows_nothing_of_a_run_gets_all_of_it(tiny_config: MakeConfig, tmp_path: Path) -> None:
    """The store was lost, or the run goes on with another one."""
    for name, epochs in (("first", (1, 2)), ("second", (1, 2, 3))):
        store = open_store(TrackingConfig(), tmp_path / name)
        tracker = Tracker(store, tmp_path / "run")
        logger = tracker.start_run(kind="run", run_id="r", name="r", config=tiny_config())
        for epoch in epochs:
            logger({"epoch": epoch, "train/loss": float(epoch)})
        assert tracker.close(wait_seconds=5) == 0
    (run,) = contents(store.uri).values()
    assert run[3] == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert run[1]["train.num_epochs"] == "3"


def test_the_environment_names_store_and_experiment_where_the_config_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = f"sqlite:///{tmp_path}/named/mlflow.db"
    (tmp_path / "named").mkdir()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", named)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "from outside")
    store = open_store(TrackingConfig(), tmp_path / "runs")
    assert (store.uri, store.name) == (named, "from outside")
    assert MlflowClient(named).get_experiment(store.experiment_id).name == "from outside"
    assert existing_store_uri(None, tmp_path / "runs") == named
    own = f"sqlite:///{tmp_path}/named/own.db"
    chosen = open_store(TrackingConfig(uri=own, experiment="mine"), tmp_path / "runs")
    assert (chosen.uri, chosen.name) == (own, "mine")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "databricks")
    with pytest.raises(UserError, match=r"^MLFLOW_TRACKING_URI: expected http.* got 'databricks'"):
        check_server(store_uri(TrackingConfig(), tmp_path))


def test_a_model_is_ranked_by_the_metrics_of_its_epoch_and_registered_as_champion(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    """Each entry is written twice, as after a kill."""
    store, folder = open_store(TrackingConfig(), tmp_path), tmp_path / "run"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "MLmodel").write_text("flavors: {}")
    for run_id, accuracies in (("first", (0.5, 0.75, 0.25)), ("second", (0.5, 1.0, 0.25))):
        tracker = Tracker(store, tmp_path / run_id)
        logger = tracker.start_run(kind="run", run_id=run_id, name=run_id, config=tiny_config())
        for epoch, accuracy in enumerate(accuracies, start=1):
            logger({"epoch": epoch, "eval/linear_accuracy": accuracy})
        shutil.copytree(folder / "model", tmp_path / run_id / "model")
        logger.log_model(tmp_path / run_id / "model", 2)
        logger.register_model("digits")
        logger.finish()
        assert tracker.close(wait_seconds=5) == 0
        for entry in read_entries(tmp_path / run_id):
            StoreWriter(store, tmp_path / run_id)(entry)
    client = store.client
    models = client.search_logged_models(
        [store.experiment_id], order_by=[{"field_name": "metrics.eval/linear_accuracy", "ascending": False}]
    )
    assert [[metric.value for metric in model.metrics] for model in models] == [[1.0], [0.75]]
    best = client.get_run(models[0].source_run_id)
    assert [each.model_id for each in best.outputs.model_outputs] == [models[0].model_id]
    history = client.get_metric_history(best.info.run_id, "eval/linear_accuracy")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 1.0), (3, 0.25)]
    champion = client.get_model_version_by_alias("digits", "champion")
    assert champion.run_id == best.info.run_id
    assert len(client.search_model_versions("name = 'digits'")) == 2


def test_what_was_swept_comes_first_and_user_and_source_are_recorded(tiny_config: MakeConfig, tmp_path: Path) -> None:
    tracker = Tracker(open_store(TrackingConfig(), tmp_path), tmp_path / "run")
    swept = {"clusters.num_clusters": 6}
    tracker.start_run(kind="trial", run_id="t", name="t", config=tiny_config(), swept=swept).finish()
    assert tracker.close(wait_seconds=5) == 0
    (run,) = tracker.store.client.search_runs([tracker.store.experiment_id])
    assert min(run.data.params) == "_swept/clusters.num_clusters"
    assert run.data.params["_swept/clusters.num_clusters"] == run.data.params["clusters.num_clusters"] == "6"
    assert {"mlflow.user", "mlflow.source.type", "mlflow.source.git.commit"} <= run.data.tags.keys()


def test_a_deleted_experiment_is_refused_with_the_way_to_restore_it(tmp_path: Path) -> None:
    store = open_store(TrackingConfig(experiment="mine"), tmp_path)
    store.client.delete_experiment(store.experiment_id)
    with pytest.raises(UserError, match=r"'mine' was deleted .* mlflow experiments restore --experiment-id 1`, or cho"):
        open_store(TrackingConfig(experiment="mine"), tmp_path)
    store.client.restore_experiment(store.experiment_id)
    assert open_store(TrackingConfig(experiment="mine"), tmp_path).experiment_id == store.experiment_id


def test_a_deleted_run_is_not_continued(tiny_config: MakeConfig, tmp_path: Path) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    tracker = Tracker(store, tmp_path / "sweep")
    record_sweep(tracker, tiny_config())
    tracker.start_run(kind="trial", run_id="s/2", name="k=2", config=tiny_config(), parent="s").finish("KILLED")
    assert tracker.close(wait_seconds=5) == 0
    ids = {run.data.tags["clray.id"]: run.info.run_id for run in store.client.search_runs([store.experiment_id])}
    store.client.delete_run(ids["s/0"])
    Tracker(store, tmp_path / "sweep").close(5)  # a finished trial is not continued
    for run in ("s/2", "s"):
        store.client.delete_run(ids[run])
        with pytest.raises(UserError, match=rf"deleted in MLflow \({run}\).* mlflow runs restore --run-id {ids[run]}"):
            Tracker(store, tmp_path / "sweep")
        store.client.restore_run(ids[run])
    Tracker(store, tmp_path / "sweep").close(5)


def test_figures_of_a_sweep_are_recorded_once_however_often_it_is_concluded(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    for best in (0.5, 0.5, 0.75):
        tracker = Tracker(store, tmp_path / "sweep")
        parent = tracker.start_run(kind="sweep", run_id="s", name="s", config=tiny_config())
        parent.log_summary({"best/eval/linear_accuracy": best, "best/clusters/num_clusters": 10.0})
        assert tracker.close(wait_seconds=5) == 0
    (run,) = store.client.search_runs([store.experiment_id])
    for name, values in (("eval/linear_accuracy", [0.5, 0.75]), ("clusters/num_clusters", [10.0])):
        history = store.client.get_metric_history(run.info.run_id, f"best/{name}")
        assert [each.value for each in history] == values
    assert run.data.metrics["best/eval/linear_accuracy"] == 0.75


def test_a_damaged_line_is_kept_aside_and_those_after_it_are_recorded(tiny_config: MakeConfig, tmp_path: Path) -> None:
    store = open_store(TrackingConfig(), tmp_path / "lost")
    tracker = Tracker(store, tmp_path / "run")
    logger = tracker.start_run(kind="run", run_id="r", name="r", config=tiny_config())
    logger({"epoch": 1, "train/loss": 1.0})
    tracker.close(wait_seconds=5)
    lines = (tmp_path / "run" / OUTBOX_FILE).read_bytes().splitlines(keepends=True)
    lines[1] = b'{"op": "te\xff\n'
    (tmp_path / "run" / OUTBOX_FILE).write_bytes(b"".join(lines))
    store = open_store(TrackingConfig(), tmp_path)
    assert Tracker(store, tmp_path / "run").close(wait_seconds=5) == 0
    (run,) = contents(store.uri).values()
    assert run[3] == [(1, 1.0)]
    assert "damaged" in (tmp_path / "run" / REFUSED_FILE).read_text()


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
        deadline = time.monotonic() + 180
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
        (tracker.folder / "picture.png").write_bytes(b"png")
        logger.log_file(tracker.folder / "picture.png")
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


@pytest.mark.parametrize("operation", ["file", "model"])
def test_what_lies_outside_the_folder_is_not_uploaded(operation: str, tiny_config: MakeConfig, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a key")
    folder = tmp_path / "run"
    model = folder / "model"
    model.mkdir(parents=True)
    (model / "weights").symlink_to(tmp_path / "secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    tracker = Tracker(open_store(TrackingConfig(), tmp_path), folder)
    tracker.start_run(kind="run", run_id="r", name="r", config=tiny_config())
    paths = [model] if operation == "model" else [tmp_path / "secret", folder / "link", folder / ".." / "secret"]
    for path in paths:
        tracker.outbox.add({"op": operation, "run": "r", "path": str(path)})
    assert tracker.close(10) == 0
    refused = (folder / REFUSED_FILE).read_text(encoding="utf-8").splitlines()
    assert len(refused) == len(paths)
    assert all("lies outside" in line for line in refused)
    uploaded = [file for file in (tmp_path / "mlartifacts").rglob("*") if file.is_file()]
    assert [file.name for file in uploaded] == ["config.yaml"]


def test_trials_are_read_from_the_tables_as_mlflow_finds_them_in_as_few_queries_however_many(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    store = open_store(TrackingConfig(), tmp_path)
    tracker = Tracker(store, tmp_path / "sweep")
    config = tiny_config()
    parent = tracker.start_run(kind="sweep", run_id="s", name="s", config=config)
    statements: list[int] = []
    for count in (2, 5):
        for index in range(count):
            own = override(config, {"objective.temperature": 0.1 + index, "seed": index})
            trial = tracker.start_run(kind="trial", run_id=f"s/{count}{index}", name="k", config=own, parent="s")
            trial({"epoch": 1, "train/loss": float("nan") if index else 1.0, "eval/linear_accuracy": index / 10})
            trial.finish()
        while tracker.outbox.progress.num_sent < tracker.outbox.progress.num_entries:
            time.sleep(0.05)
        client = MlflowClient(store.uri)
        mlflow_id = tracker.writer.mlflow_ids[parent.run_id]
        engine = client._tracking_client.store.engine
        said: list[str] = []
        sqlalchemy.event.listen(
            engine, "before_cursor_execute", lambda *arguments, said=said: said.append(arguments[2])
        )
        read = search_trials(client, [store.experiment_id], mlflow_id)
        statements.append(len(said))
        found = search_runs(client, [store.experiment_id], f"tags.`mlflow.parentRunId` = '{mlflow_id}'")[::-1]
        assert [(each.name, each.status, each.params, each.tags) for each in read] == [
            (run.info.run_name, run.info.status, run.data.params, run.data.tags) for run in found
        ]
        for each, run in zip(read, found, strict=True):
            assert each.metrics == pytest.approx(run.data.metrics, nan_ok=True)
    tracker.close(5)
    assert statements[0] == statements[1] <= 6


@pytest.mark.parametrize(("database", "is_read"), [("sqlite", True), ("postgresql", True), ("mysql", False)])
def test_tables_are_read_only_where_texts_are_compared_exactly(database: str, is_read: bool) -> None:
    """MySQL takes `cifar` for `CIFAR`, and trials would be told to share a value that they do not."""
    store = object.__new__(SqlAlchemyStore)
    store.engine = SimpleNamespace(dialect=SimpleNamespace(name=database))
    client = SimpleNamespace(_tracking_client=SimpleNamespace(store=store))
    assert (_engine_of(client) is not None) == is_read
