"""What a finished sweep leaves: its folder, its MLflow store, its report, and checkpoints to go on with."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from clray.cli.checkpoint import embed
from clray.errors import UserError
from clray.report.look.opened import open_run
from tests import commands
from tests.cli.test_app import GRID, runs_in
from tests.conftest import ALL_ARTIFACTS, TINY, png
from tests.data.test_load import write_parquet

pytestmark = pytest.mark.slow
Clray = Callable[..., object]


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A sweep of five trials, one of which cannot work, run once for several tests."""
    folder = tmp_path_factory.mktemp("sweep")
    space = [GRID, {"clusters.source": "labels", "train.learning_rate": 1e30}]
    (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY | ALL_ARTIFACTS | {"search_space": space}))
    done = commands.run(["sweep", "tiny.yaml", "-o", "out", "--name", "s", "--json"], folder=folder)
    assert done.returncode == 1, done.stderr
    assert "the loss is nan in epoch 1" in done.stderr
    assert "Traceback" not in done.stderr
    return folder / "out", json.loads(done.stdout)


def test_a_sweep_goes_on_past_a_failing_trial_and_ranks_the_others(swept: tuple[Path, dict]) -> None:
    output, results = swept
    states = [trial["state"] for trial in results["trials"]]
    assert states == ["finished"] * 4 + ["failed"]
    accuracies = [trial["metrics"]["eval/linear_accuracy"] for trial in results["trials"][:4]]
    assert accuracies == sorted(accuracies, reverse=True)
    assert results["trials"][4]["error"].startswith("the loss is nan in epoch 1, worker 0, step")
    assert (output / "s" / "information_plane.png").stat().st_size > 10_000
    assert 'href="clusters.html"' in (output / "s" / "report.html").read_text()
    assert open_run(output / "s").folder == output / "s" / "trials" / results["best"]
    assert json.loads((output / "s" / "results.json").read_text()) == results


def test_the_store_of_a_sweep_reads_back(swept: tuple[Path, dict]) -> None:
    output, results = swept
    client, runs = runs_in(f"sqlite:///{output / 'mlflow.db'}")
    (parent,) = [run for run in runs if run.data.tags["clray.kind"] == "sweep"]
    trials = [run for run in runs if run.data.tags["clray.kind"] == "trial"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {parent.info.run_id}
    assert sorted(run.info.status for run in trials) == ["FAILED"] + ["FINISHED"] * 4
    artifacts = {file.path for file in client.list_artifacts(parent.info.run_id)}
    pictures = {"information_plane.png", "granularity.png"}
    assert artifacts == {"config.yaml", "best.yaml", "report.html", "clusters.html", "results.json"} | pictures
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
    assert table.startswith("The best clusters are k=")
    assert "\n| point | role | repeats | linear % |" in table
    done = clray("report", "other", "-o", output)
    assert done.returncode == 2
    assert "no sweep 'other'" in done.stderr
    assert "the latest there: s" in done.stderr


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


def test_a_trial_equals_a_plain_run_of_its_config(swept: tuple[Path, dict], clray: Clray, tmp_path: Path) -> None:
    output, results = swept
    trial = results["trials"][0]
    sets = [part for key, value in trial["config"].items() for part in ("--set", f"{key}={value}")]
    done = clray("train", output.parent / "tiny.yaml", "-o", tmp_path, "--json", *sets)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    for name in ("train/loss", "eval/linear_accuracy", "recluster/inertia", "clusters/mutual_information_bits"):
        assert metrics[name] == pytest.approx(trial["metrics"][name], rel=1e-6), name


def test_a_checkpoint_is_evaluated(swept: tuple[Path, dict], clray: Clray) -> None:
    trial = swept[1]["trials"][0]
    done = clray("evaluate", trial["folder"], "--json")
    metrics = json.loads(done.stdout)
    assert metrics["eval/knn_accuracy"] == pytest.approx(trial["metrics"]["eval/knn_accuracy"])
    more = json.loads(clray("evaluate", trial["folder"], "--json", "--set", "data.max_test_images=20").stdout)
    assert more["eval/knn_accuracy"] != metrics["eval/knn_accuracy"]


def test_a_checkpoint_is_exported_and_embeds(swept: tuple[Path, dict], clray: Clray, tmp_path: Path) -> None:
    folder = swept[1]["trials"][0]["folder"]
    exported = json.loads(clray("export", folder, "-o", tmp_path / "e.safetensors", "--json").stdout)
    assert exported["representation_dim"] == "16"
    clray("embed", folder, "-o", tmp_path / "z.npy", "--layer", "z")
    assert np.load(tmp_path / "z.npy").shape == (96, 8)
    embed(Path(folder), output=tmp_path / "h.npy")
    assert np.load(tmp_path / "h.npy").shape == (96, 16)
    write_parquet(tmp_path / "other.parquet", [png(i) for i in range(5)], list(range(5)))
    for data, output, message in (
        (None, "z.npy", "z.npy exists; choose another file"),
        (tmp_path / "other.parquet", "n.npy", "the images have 3 channels"),
        (tmp_path / "z.npy", "n.npy", "the vectors have 8 dimensions"),
    ):
        with pytest.raises(UserError, match=message):
            embed(Path(folder), data, tmp_path / output)
