"""The command as a user calls it: real Ray, real MLflow, exit codes and messages."""

import http.server
import json
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
from clray.sweeps.search_space import plan_sweep
from clray.training.metrics import read_metrics
from tests.conftest import CIFAR10, REPOSITORY, TINY, png
from tests.data.test_load import write_parquet

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
        assert "holds another run; resume it with --resume, or choose another --name" in done.stderr
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
    server.server_close()


def test_a_tracking_server_that_hangs_is_refused(
    clray: Clray, tiny_yaml: Clray, tmp_path: Path, silent_server: str
) -> None:
    done = clray("train", tiny_yaml(), "-o", tmp_path / "out", "--tracking-uri", silent_server, timeout=180)
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
    """A grid's first value: each search space is walked with one trial. Numbers of clusters fit few images."""
    value = domain["grid_search"][0] if isinstance(domain, dict) else domain
    few = [each // 25 if isinstance(each, int) and each > 300 else each for each in np.atleast_1d(value).tolist()]
    return few if isinstance(value, list) else few[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem == "quickstart" else pytest.mark.long)
        for path in sorted((REPOSITORY / "tune_configs").glob("*.yaml"))
    ],
)
def test_every_config_of_the_repository_runs_in_a_tiny_mode(clray: Clray, tmp_path: Path, path: Path) -> None:
    tree = load_tree(path)
    files: list[str] = []
    if tree["data"]["name"] == "parquet":
        if not CIFAR10.exists():
            pytest.skip(f"the CIFAR-10 Parquet files are not at {CIFAR10}")
        files = [f"data.train_path={CIFAR10 / 'test.parquet'}", "data.max_test_images=100"]
    config: Config = load_config(path, files)
    assert len(plan_sweep(config).points) > 1
    tree["search_space"] = [{key: first_of(value) for key, value in space.items()} for space in tree["search_space"]]
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    tiny = ("data.max_train_images=600", "train.num_epochs=1", "recluster.warmup_epochs=0", *files)
    sets = [part for setting in tiny for part in ("--set", setting)]
    done = clray("sweep", tmp_path / "tiny.yaml", "-o", tmp_path / "out", "--json", *sets)
    assert done.returncode == 0, done.stderr
    assert {trial["state"] for trial in json.loads(done.stdout)["trials"]} == {"finished"}
