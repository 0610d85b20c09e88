"""The command as a user calls it: real Ray, real MLflow, exit codes and messages."""

import http.server
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow import MlflowClient

from clray.config import Config, load_config, load_tree
from clray.sweep.search_space import plan_sweep
from clray.train.session import read_metrics
from tests.conftest import CIFAR10, REPOSITORY, TINY, png
from tests.data.test_datasets import write_parquet

Clray = Callable[..., object]
GRID = {"clusters.num_clusters": {"grid_search": [4, 8]}, "objective.temperature": {"grid_search": [0.1, 0.5]}}


def runs_in(uri: str) -> tuple[MlflowClient, list]:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("clray")
    return client, client.search_runs([experiment.experiment_id])


# --- what is refused: exit code 2, one clear message, nothing written -------------------------------------------------


def test_help_lists_the_commands(clray: Clray) -> None:
    done = clray("--help")
    assert done.returncode == 0
    for command in ("train", "sweep", "cluster", "report", "evaluate", "statistics", "doctor"):
        assert command in done.stdout


@pytest.mark.parametrize("command", ["train", "sweep"])
@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("clusters.num_cluster=5", "unknown key 'clusters.num_cluster'. Did you mean 'clusters.num_clusters'?"),
        ("objective.temperature=0", "objective.temperature must be greater than 0; got 0"),
        ("clusters.num_clusters=1", "clusters.num_clusters must be greater than or equal to 2; got 1"),
        (
            "data.train_path=nowhere.parquet data.name=parquet",
            "data.train_path: no such file or folder: nowhere.parquet",
        ),
        ("train.num_epochs", "expected KEY=VALUE"),
    ],
)
def test_a_bad_setting_is_refused(
    clray: Clray, tiny_yaml: Clray, tmp_path: Path, command: str, assignment: str, message: str
) -> None:
    sets = [part for setting in assignment.split() for part in ("--set", setting)]
    done = clray(command, tiny_yaml(search_space=GRID), "-o", tmp_path / "out", *sets)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_more_clusters_than_training_images_are_refused_before_ray_starts(
    clray: Clray, tiny_yaml: Clray, tmp_path: Path
) -> None:
    space = {"clusters.num_clusters": {"grid_search": [4, 97]}}
    done = clray("sweep", tiny_yaml(search_space=space), "-o", tmp_path / "out", "--name", "x")
    assert done.returncode == 2
    assert "trial k=97: clusters.num_clusters must be at most 96 (the training images); got 97" in done.stderr
    assert not (tmp_path / "out" / "x").exists()


def test_a_grid_over_an_unknown_key_is_refused(clray: Clray, tiny_yaml: Clray, tmp_path: Path) -> None:
    config = tiny_yaml(search_space={"clusters.k": {"grid_search": [4]}})
    done = clray("sweep", config, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "search_space: unknown key 'clusters.k'" in done.stderr


def test_an_undecodable_image_is_named(clray: Clray, tmp_path: Path) -> None:
    blobs = [png(i) for i in range(20)]
    blobs[3] = b"broken"
    data = write_parquet(tmp_path / "t.parquet", blobs, [0, 1] * 10)
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(TINY | {"data": {"name": "parquet", "train_path": data.train_path}}))
    done = clray("train", path, "-o", tmp_path / "out")
    assert done.returncode == 2
    assert "t.parquet, row 3: cannot decode the image" in done.stderr


def test_a_folder_that_holds_another_run_is_not_overwritten(clray: Clray, tiny_yaml: Clray, tmp_path: Path) -> None:
    (tmp_path / "out" / "x").mkdir(parents=True)
    (tmp_path / "out" / "x" / "config.yaml").write_text("mine")
    for command in ("train", "sweep"):
        done = clray(command, tiny_yaml(search_space=GRID), "-o", tmp_path / "out", "--name", "x")
        assert done.returncode == 2
        assert "holds another run; go on with it with --resume, or choose another --name" in done.stderr
    assert (tmp_path / "out" / "x" / "config.yaml").read_text() == "mine"


def test_a_tracking_server_that_does_not_answer_is_refused(clray: Clray, tiny_yaml: Clray, tmp_path: Path) -> None:
    done = clray("train", tiny_yaml(), "-o", tmp_path / "out", "--tracking-uri", "http://127.0.0.1:9")
    assert done.returncode == 2
    assert "tracking.uri: no MLflow server answers at http://127.0.0.1:9" in done.stderr


class Silent(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        time.sleep(20)


@pytest.fixture
def silent_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_tracking_server_that_hangs_is_refused(
    clray: Clray, tiny_yaml: Clray, tmp_path: Path, silent_server: str
) -> None:
    done = clray("train", tiny_yaml(), "-o", tmp_path / "out", "--tracking-uri", silent_server, timeout=60)
    assert done.returncode == 2
    assert "no MLflow server answers" in done.stderr


def test_a_ray_cluster_that_does_not_answer_is_refused(clray: Clray, tiny_yaml: Clray, tmp_path: Path) -> None:
    done = clray("train", tiny_yaml(), "-o", tmp_path / "out", RAY_ADDRESS="127.0.0.1:9")
    assert done.returncode == 2
    assert "RAY_ADDRESS=127.0.0.1:9: no Ray cluster answers there" in done.stderr


def test_the_resolved_config_is_printed_and_reads_back(clray: Clray, tiny_yaml: Clray, tmp_path: Path) -> None:
    done = clray("train", tiny_yaml(), "--print-config", "--set", "train.learning_rate=1e-5")
    (tmp_path / "again.yaml").write_text(done.stdout)
    assert load_config(tmp_path / "again.yaml").train.learning_rate == 1e-5


# --- what works, on a real Ray and a real store -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A sweep of five trials, one of which cannot work, run once for several tests."""
    folder = tmp_path_factory.mktemp("sweep")
    space = [GRID, {"clusters.source": "labels", "train.learning_rate": 1e30}]
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY | {"search_space": space}))
    command = [sys.executable, "-m", "clray", "sweep", "tiny.yaml", "-o", "out", "--name", "s", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=480, cwd=folder, check=False)
    assert done.returncode == 1, done.stderr
    assert "the loss is nan in epoch 1" in done.stderr
    assert "Traceback" not in done.stderr
    return folder / "out", json.loads(done.stdout)


@pytest.mark.slow
def test_a_sweep_goes_on_past_a_failing_trial_and_ranks_the_others(swept: tuple[Path, dict]) -> None:
    output, results = swept
    states = [trial["state"] for trial in results["trials"]]
    assert states == ["finished"] * 4 + ["failed"]
    accuracies = [trial["metrics"]["eval/linear_accuracy"] for trial in results["trials"][:4]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert results["trials"][4]["error"].startswith("the loss is nan in epoch 1, worker 0, step")
    assert (output / "s" / "information_plane.png").stat().st_size > 10_000
    assert json.loads((output / "s" / "results.json").read_text()) == results


@pytest.mark.slow
def test_the_store_of_a_sweep_reads_back(swept: tuple[Path, dict]) -> None:
    output, results = swept
    client, runs = runs_in(f"sqlite:///{output / 'mlflow.db'}")
    (parent,) = [run for run in runs if run.data.tags["clray.kind"] == "sweep"]
    trials = [run for run in runs if run.data.tags["clray.kind"] == "trial"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}
    assert sorted(run.info.status for run in trials) == ["FAILED"] + ["FINISHED"] * 4
    artifacts = {file.path for file in client.list_artifacts(parent.info.run_id)}
    pictures = {"information_plane.png", "granularity.png"}
    assert artifacts == {"config.yaml", "best.yaml", "report.html", "results.json"} | pictures
    (best,) = [run for run in trials if run.data.tags.get("clray.best") == "true"]
    assert best.info.run_name == results["trials"][0]["trial"]
    for trial in results["trials"][:4]:
        (run,) = [run for run in trials if run.info.run_name == trial["trial"]]
        assert run.data.params["objective.temperature"] == str(trial["config"]["objective.temperature"])
        for name, value in trial["metrics"].items():
            if "/" in name:
                assert run.data.metrics[name] == pytest.approx(value), name
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [metric.step for metric in history] == [1, 2, 3]


@pytest.mark.slow
def test_the_report_of_a_sweep_reads_the_store_alone(swept: tuple[Path, dict], clray: Clray) -> None:
    output, results = swept
    report = json.loads(clray("report", "s", "-o", output, "--json").stdout)
    finished = {trial["trial"]: trial["metrics"] for trial in results["trials"][:4]}
    assert {each["point"] for each in report["points"]} == finished.keys()
    means = [each["means"]["eval/linear_accuracy"] for each in report["points"]]
    assert means == sorted(means, reverse=True)
    for point in report["points"]:
        expected = finished[point["point"]]["eval/linear_accuracy"]
        assert point["means"]["eval/linear_accuracy"] == pytest.approx(expected)
    table = clray("report", "latest", "-o", output, "--markdown").stdout
    assert table.startswith("| point | repeats | linear % |")
    done = clray("report", "other", "-o", output)
    assert done.returncode == 2
    assert "no sweep 'other'" in done.stderr
    assert "the latest there: s" in done.stderr


@pytest.mark.slow
def test_resuming_a_finished_sweep_repeats_and_doubles_nothing(swept: tuple[Path, dict], clray: Clray) -> None:
    output, results = swept
    before = {path: path.read_text() for path in (output / "s" / "trials").glob("*/metrics.jsonl")}
    config = output.parent / "tiny.yaml"
    done = clray("sweep", config, "-o", output, "--name", "s", "--resume", "--json")
    again = json.loads(done.stdout)
    assert [t["metrics"] for t in again["trials"][:4]] == [t["metrics"] for t in results["trials"][:4]]
    assert {path: path.read_text() for path in (output / "s" / "trials").glob("*/metrics.jsonl")} == before
    _, runs = runs_in(f"sqlite:///{output / 'mlflow.db'}")
    assert len(runs) == 6


@pytest.mark.slow
def test_a_trial_equals_a_plain_run_of_its_config(swept: tuple[Path, dict], clray: Clray, tmp_path: Path) -> None:
    output, results = swept
    trial = results["trials"][0]
    sets = [part for key, value in trial["config"].items() for part in ("--set", f"{key}={value}")]
    done = clray("train", output.parent / "tiny.yaml", "-o", tmp_path, "--json", *sets)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    for name in ("train/loss", "eval/linear_accuracy", "recluster/inertia", "clusters/mutual_information_bits"):
        assert metrics[name] == pytest.approx(trial["metrics"][name], rel=1e-6), name


@pytest.mark.slow
def test_a_checkpoint_is_evaluated(swept: tuple[Path, dict], clray: Clray) -> None:
    trial = swept[1]["trials"][0]
    done = clray("evaluate", trial["folder"], "--json")
    metrics = json.loads(done.stdout)
    assert metrics["eval/knn_accuracy"] == pytest.approx(trial["metrics"]["eval/knn_accuracy"])
    more = json.loads(clray("evaluate", trial["folder"], "--json", "--set", "data.max_test_images=20").stdout)
    assert more["eval/knn_accuracy"] != metrics["eval/knn_accuracy"]


@pytest.mark.slow
def test_a_checkpoint_is_exported_and_embeds(swept: tuple[Path, dict], clray: Clray, tmp_path: Path) -> None:
    folder = swept[1]["trials"][0]["folder"]
    exported = json.loads(clray("export", folder, "-o", tmp_path / "e.safetensors", "--json").stdout)
    assert exported["representation_dim"] == "16"
    for layer, dim in (("h", 16), ("z", 8)):
        clray("embed", folder, "-o", tmp_path / f"{layer}.npy", "--layer", layer)
        assert np.load(tmp_path / f"{layer}.npy").shape == (96, dim)
    write_parquet(tmp_path / "other.parquet", [png(i) for i in range(5)], list(range(5)))
    for arguments, message in (
        ((folder, "-o", tmp_path / "z.npy"), "z.npy exists; choose another file"),
        ((folder, tmp_path / "other.parquet", "-o", tmp_path / "n.npy"), "the images have 3 channels"),
        ((folder, tmp_path / "z.npy", "-o", tmp_path / "n.npy"), "expected a .parquet file"),
    ):
        done = clray("embed", *arguments)
        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.slow
def test_two_workers_train_and_resume_on_a_real_ray(clray: Clray, tiny_yaml: Clray, tmp_path: Path) -> None:
    config = tiny_yaml(train={"num_workers": 2, "num_epochs": 3, "cpus_per_worker": 0.5})
    arguments = ("train", config, "-o", tmp_path / "out", "--name", "two")
    done = clray(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    metrics = read_metrics(Path(result["folder"]))
    assert [m["epoch"] for m in metrics] == [1, 2, 3]
    assert metrics[-1]["clusters/num_clusters"] == 6
    client, (run,) = runs_in(f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")
    assert run.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 2, 3]
    evaluated = json.loads(clray("evaluate", result["folder"], "--json").stdout)
    assert evaluated["eval/knn_accuracy"] == pytest.approx(metrics[-1]["eval/knn_accuracy"])


@pytest.mark.slow
def test_a_killed_run_goes_on_as_if_nothing_had_happened(clray: Clray, tiny_yaml: Clray, tmp_path: Path) -> None:
    config = tiny_yaml(clusters={"source": "labels"}, train={"num_epochs": 60, "checkpoint_every_epochs": 7})
    arguments = ["train", str(config), "-o", str(tmp_path / "out"), "--json", "--name"]
    whole = json.loads(clray(*arguments, "whole").stdout)["metrics"]
    process = subprocess.Popen([sys.executable, "-m", "clray", *arguments, "cut"], stdout=subprocess.DEVNULL)
    while len(read_metrics(tmp_path / "out" / "cut")) < 10:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    done = clray(*arguments, "cut", "--resume")
    resumed = json.loads(done.stdout)["metrics"]
    for name in ("train/loss", "eval/linear_accuracy", "eval/knn_accuracy"):
        assert resumed[name] == whole[name]
    assert [m["epoch"] for m in read_metrics(tmp_path / "out" / "cut")] == list(range(1, 61))
    client, runs = runs_in(f"sqlite:///{tmp_path / 'out' / 'mlflow.db'}")
    assert len(runs) == 2
    for run in runs:
        assert run.info.status == "FINISHED"
        assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == list(range(1, 61))


def test_statistics_of_two_columns(clray: Clray, tmp_path: Path) -> None:
    frame = pd.DataFrame({"label_gran_3": [0, 0, 1, 1, -5], "class": [0, 1, 2, 3, 9]}, index=[0, 1, 2, 3, -1])
    frame.to_csv(tmp_path / "t.csv")
    done = clray("statistics", tmp_path / "t.csv", "--clusters", "label_gran_3", "--labels", "class", "--json")
    values = json.loads(done.stdout)
    assert values["clusters/mutual_information_bits"] == pytest.approx(1.0)
    assert values["clusters/label_conditional_entropy_bits"] == pytest.approx(1.0)
    done = clray("statistics", tmp_path / "t.csv", "--clusters", "nope", "--labels", "class")
    assert done.returncode == 2
    assert "no column 'nope'; the table has: label_gran_3, class" in done.stderr


@pytest.mark.slow
def test_doctor_finds_everything_in_order(clray: Clray) -> None:
    done = clray("doctor", "--json")
    assert done.returncode == 0, done.stdout
    assert {"torch", "faiss", "ray cluster", "tracking"} <= json.loads(done.stdout).keys()


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.skipif(not CIFAR10.exists(), reason=f"the CIFAR-10 Parquet files are not at {CIFAR10}")
def test_cifar10_trains_from_parquet_as_it_stands(clray: Clray, tiny_yaml: Clray, tmp_path: Path) -> None:
    data = {
        "name": "parquet",
        "train_path": str(CIFAR10 / "test.parquet"),
        "max_train_images": 128,
        "max_test_images": 64,
    }
    config = tiny_yaml(data=data, augmentation={"name": "simclr"}, train={"num_epochs": 2})
    done = clray("train", config, "-o", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["metrics"]["clusters/num_clusters"] == 6


def first_of(domain: object) -> object:
    """A grid's first value: each search space is walked with one trial."""
    return domain["grid_search"][0] if isinstance(domain, dict) else domain


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem == "quickstart" else pytest.mark.long)
        for path in sorted((REPOSITORY / "tune_configs").glob("*.yaml"))
    ],
)
def test_every_config_of_the_repository_runs_in_a_tiny_mode(clray: Clray, tmp_path: Path, path: Path) -> None:
    config: Config = load_config(path)
    assert len(plan_sweep(config).points) > 1
    tree = load_tree(path)
    tree["search_space"] = [{key: first_of(value) for key, value in space.items()} for space in tree["search_space"]]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    tiny = ("data.max_train_images=600", "train.num_epochs=1", "evaluate.probe_epochs=1", "recluster.warmup_epochs=0")
    if config.data.name == "cifar10":
        if not CIFAR10.exists():
            pytest.skip(f"the CIFAR-10 Parquet files are not at {CIFAR10}")
        files = (f"data.train_path={CIFAR10 / 'test.parquet'}", "data.name=parquet", "data.max_test_images=100")
        tiny = (*tiny, *files)
    sets = [part for setting in tiny for part in ("--set", setting)]
    done = clray("sweep", tmp_path / "tiny.yaml", "-o", tmp_path / "out", "--json", *sets)
    assert done.returncode == 0, done.stderr
    assert {trial["state"] for trial in json.loads(done.stdout)["trials"]} == {"finished"}
