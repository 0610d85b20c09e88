"""Whole sweeps on a real Ray: early stopping, population-based training, retries, and interruptions of every kind."""

import json
import math
import os
import shutil
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
from ray.tune.execution.tune_controller import TuneController

import clray as clray_library
from clray.track.results import read_sweep
from clray.training.checkpoint import read_checkpoint
from clray.training.metrics import read_metrics
from tests.conftest import TINY

pytestmark = pytest.mark.slow
Clray = Callable[..., subprocess.CompletedProcess]


def write_config(folder: Path, **sections: object) -> Path:
    tree = {name: {**values} for name, values in TINY.items()}
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values} if isinstance(values, dict) else values
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def results_of(done: subprocess.CompletedProcess) -> dict[str, dict]:
    assert done.returncode == 0, done.stderr
    return {trial["trial"]: trial for trial in json.loads(done.stdout)["trials"]}


def test_early_stopping_ends_trials_and_says_why(clray: Clray, tmp_path: Path) -> None:
    """One trial can tell little: its representation has four dimensions. ASHA ends it."""
    config = write_config(
        tmp_path,
        clusters={"source": "labels"},
        train={"num_epochs": 8},
        evaluate={"every_epochs": 1},
        sweep={"scheduler": "asha", "grace_epochs": 2, "reduction_factor": 2, "max_concurrent_trials": 1},
        search_space={"encoder.width": {"grid_search": [8, 1]}},
    )
    trials = results_of(clray("sweep", config, "-o", tmp_path / "out", "--name", "s", "--json"))
    assert trials["width=8"]["state"] == "finished"
    ended = trials["width=1"]
    assert ended["state"] == "pruned"
    assert ended["metrics"]["epoch"] < 8
    assert ended["reason"] == f"stopped by asha at epoch {int(ended['metrics']['epoch'])}"
    client = MlflowClient(f"sqlite:///{tmp_path}/out/mlflow.db")
    experiments = [each.experiment_id for each in client.search_experiments()]
    (run,) = client.search_runs(experiments, "tags.`clray.state` = 'pruned'")
    assert run.data.tags["clray.reason"] == ended["reason"]


@pytest.mark.long
def test_trials_that_share_their_warm_up_are_what_each_is_alone(tmp_path: Path) -> None:
    """In MLflow too each has all its epochs."""
    tree = {name: {**values} for name, values in TINY.items()} | {"output": str(tmp_path / "out")}
    tree |= {"recluster": {"warmup_epochs": 2}, "search_space": {"clusters.num_clusters": {"grid_search": [4, 9]}}}
    result = clray_library.sweep(tree, name="s")
    client = MlflowClient(result.tracking_uri)
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()], "tags.`clray.trunk` != ''")
    assert len(runs) == 2
    for run in runs:
        history = client.get_metric_history(run.info.run_id, "train/loss")
        assert [metric.step for metric in history] == [1, 2, 3]
    for record in result.records:
        alone = clray_library.train(tree, record.point.overrides, name=record.point.name, debug=True)
        found, expected = read_checkpoint(record.folder), read_checkpoint(alone.folder)
        torch.testing.assert_close(found["model"], expected["model"], rtol=0, atol=0)
    assert not (result.folder / "trunks").exists()


def test_tune_keeps_nothing_of_ended_trials_that_grows_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[TuneController] = []
    last = TuneController.cleanup
    monkeypatch.setattr(TuneController, "cleanup", lambda self: seen.append(self) or last(self))
    tree = {name: {**values} for name, values in TINY.items()} | {"output": str(tmp_path / "out")}
    tree |= {"clusters": {"source": "labels"}, "search_space": {"objective.temperature": {"grid_search": [0.1, 0.5]}}}
    result = clray_library.sweep(tree, name="s")
    assert [record.state for record in result.records] == ["finished"] * 2
    (controller,) = seen
    assert not any({**trial.metric_analysis, **trial.metric_n_steps} for trial in controller.get_trials())
    assert float(controller._checkpoint_period) == math.inf, "until its end it writes no state"


@pytest.mark.long
def test_points_that_the_prescreen_leaves_out_are_told_everywhere_and_not_trained(tmp_path: Path) -> None:
    tree = {name: {**values} for name, values in TINY.items()} | {"output": str(tmp_path / "out")}
    tree |= {"search_space": {"clusters.num_clusters": {"grid_search": [4, 9]}}}
    tree |= {"sweep": {"prescreen": True, "prescreen_keep": 0.5}}
    advice = clray_library.advise(tree)
    ((name, look),) = advice.left_out.items()
    result = clray_library.sweep(tree, name="s")
    assert {record.point.name: record.state for record in result.records} == {
        name: "skipped", **{each.name: "finished" for each in advice.looks if each.reason is None}
    }  # fmt: skip
    skipped = next(record for record in result.records if record.state == "skipped")
    assert skipped.reason == look.reason
    assert [path.name for path in skipped.folder.iterdir()] == ["outcome.json"]
    assert any(sentence.startswith("Not trained") and name in sentence for sentence in result.answer)
    assert look.reason is not None
    assert "<h3>Not trained</h3>" in result.places["report"].read_text()
    client = MlflowClient(result.tracking_uri)
    experiments = [each.experiment_id for each in client.search_experiments()]
    (run,) = client.search_runs(experiments, "tags.`clray.state` = 'skipped'")
    assert run.data.tags["clray.reason"] == look.reason
    ami = run.data.metrics["clusters/ami"]
    assert ami == look.figures["clusters/ami"]
    assert [each.point for each in read_sweep(result.tracking_uri, "s").skipped] == [name]
    again = clray_library.sweep(tree, name="s", resume=True)
    assert [record.state for record in again.records] == [record.state for record in result.records]


@pytest.mark.long
def test_a_sweep_whose_output_folder_is_lost_goes_on_from_the_storage(clray: Clray, tmp_path: Path) -> None:
    """One trial was over, the other had written its last checkpoint, when the machine with the output folder went."""
    kept = tmp_path / "kept" / "s"
    config = write_config(
        tmp_path,
        clusters={"source": "labels"},
        train={"storage_path": str(kept.parent)},
        tracking={"models": "best"},
        search_space={"objective.temperature": {"grid_search": [0.1, 0.5]}},
    )
    first = results_of(clray("sweep", config, "-o", tmp_path / "here", "--name", "s", "--json"))
    here = tmp_path / "here" / "s"
    for name in ("config.yaml", "results.json", "report.html", "best.yaml", "information_plane.png"):
        assert (kept / name).read_bytes() == (here / name).read_bytes()
    for trial in ("0000", "0001"):
        for name in ("checkpoint.pt", "best.pt", "metrics.jsonl", "outcome.json"):
            assert (kept / "trials" / trial / name).read_bytes() == (here / "trials" / trial / name).read_bytes()
    (kept / "trials" / "0001" / "outcome.json").unlink()
    (kept / "trials" / "0001" / "done").unlink()
    shutil.rmtree(tmp_path / "here")
    refused = clray("sweep", config, "-o", tmp_path / "there", "--name", "s")
    assert refused.returncode == 2
    assert f"{kept.parent} holds another run s; resume it with --resume" in refused.stderr

    done = clray("sweep", config, "-o", tmp_path / "there", "--name", "s", "--json", "--resume")
    again = results_of(done)
    assert again["t=0.1"]["seconds"] == first["t=0.1"]["seconds"], "it was not run again"
    for name, trial in first.items():
        assert again[name]["metrics"] == trial["metrics"], "no epoch was trained again"
    assert "could not write an MLflow model" not in done.stderr


@pytest.mark.long
def test_population_based_training_hands_checkpoints_on(clray: Clray, tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        clusters={"source": "labels"},
        train={"num_epochs": 12},
        evaluate={"every_epochs": 2},
        sweep={"scheduler": "pbt", "perturb_every_epochs": 2},
        search_space={"train.learning_rate": {"grid_search": [3e-3, 1e-3, 1e-8, 1e-9]}},
    )
    trials = results_of(clray("sweep", config, "-o", tmp_path / "out", "--name", "s", "--json"))
    assert all(trial["metrics"]["epoch"] == 12 for trial in trials.values())
    changed = [trial for trial in trials.values() if trial["changed"]]
    assert changed, "those that learn nothing take over the others' weights and rates"
    for trial in trials.values():
        epochs = [metrics["epoch"] for metrics in read_metrics(Path(trial["folder"]))]
        assert epochs == list(range(1, 13))


@pytest.mark.long
def test_a_searcher_of_its_own_and_seeds_in_one_sweep(clray: Clray, tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        clusters={"source": "labels"},
        sweep={"searcher": "optuna", "num_samples": 2, "seeds": 2},
        search_space={"objective.temperature": {"loguniform": [0.05, 1.0]}},
    )
    trials = results_of(clray("sweep", config, "-o", tmp_path / "out", "--name", "s", "--json"))
    assert len(trials) == 4
    assert sorted(name.split()[1] for name in trials) == ["seed=0", "seed=0", "seed=1", "seed=1"]
    report = json.loads(clray("report", "s", "-o", tmp_path / "out", "--json").stdout)
    assert [point["num_repeats"] for point in report["points"]] == [2, 2]


def test_a_dry_run_lists_the_trials_and_leaves_nothing(clray: Clray, tmp_path: Path) -> None:
    config = write_config(
        tmp_path, search_space={"clusters.num_clusters": {"grid_search": [3, 4, 5]}}, sweep={"seeds": 2}
    )
    done = clray("sweep", config, "-o", tmp_path / "out", "--dry-run")
    assert "6 trials, " in done.stdout
    assert "k=3 seed=1" in done.stdout
    assert not list((tmp_path / "out").glob("*.db"))


@pytest.fixture
def long_sweep(tmp_path: Path) -> Path:
    return write_config(
        tmp_path,
        clusters={"source": "labels"},
        train={"num_epochs": 60, "checkpoint_every_epochs": 1},
        sweep={"max_concurrent_trials": 1, "max_failures": 1},
        search_space={"objective.temperature": {"grid_search": [0.1, 0.2, 0.4]}},
    )


def start_sweep(config: Path, folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "clray", "sweep", str(config), "-o", str(folder), "--name", "s"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_epoch(run: subprocess.Popen, folder: Path, epoch: int) -> None:
    while len(read_metrics(folder)) < epoch:
        assert run.poll() is None, run.communicate()
        time.sleep(0.02)


def require_whole(output: Path, trials: dict[str, dict]) -> None:
    """Every trial once, on disk and in MLflow, with every epoch once."""
    assert [trial["state"] for trial in trials.values()] == ["finished"] * 3
    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert sorted(run.data.tags["clray.id"] for run in runs) == ["s", "s/0", "s/1", "s/2"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in runs:
        if run.data.tags["clray.kind"] == "trial":
            history = client.get_metric_history(run.info.run_id, "train/loss")
            assert [metric.step for metric in history] == list(range(1, 61))
    for trial in trials.values():
        assert [metrics["epoch"] for metrics in read_metrics(Path(trial["folder"]))] == list(range(1, 61))


@pytest.mark.fault
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_an_interrupted_sweep_is_resumed(clray: Clray, long_sweep: Path, tmp_path: Path, number: int) -> None:
    """In the middle of the second trial: the first stays as it is, the second goes on from its checkpoint."""
    output = tmp_path / "out"
    run = start_sweep(long_sweep, output)
    wait_for_epoch(run, output / "s" / "trials" / "0001", 8)
    os.kill(run.pid, number)
    printed, errors = run.communicate(timeout=400)
    if number == signal.SIGINT:
        assert run.returncode == 130, errors
        assert "temperature" not in errors
        assert "Traceback" not in errors
        assert "Resume with: clray sweep" in errors
        assert "t=0.1" in printed, "the results so far"
    first = (output / "s" / "trials" / "0000" / "metrics.jsonl").read_text()
    second = (output / "s" / "trials" / "0001" / "metrics.jsonl").read_text().splitlines()
    trials = results_of(clray("sweep", long_sweep, "-o", output, "--name", "s", "--resume", "--json"))
    require_whole(output, trials)
    assert (output / "s" / "trials" / "0000" / "metrics.jsonl").read_text() == first
    kept = (output / "s" / "trials" / "0001" / "metrics.jsonl").read_text().splitlines()
    assert kept[:5] == second[:5], "its epochs so far were not trained again"


@pytest.mark.fault
def test_a_trial_whose_process_is_killed_is_tried_again(long_sweep: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    run = start_sweep(long_sweep, output)
    wait_for_epoch(run, output / "s" / "trials" / "0000", 8)
    # "ray::ImplicitFunc.train", and for moments between two epochs "ray::ImplicitFunc".
    children = psutil.Process(run.pid).children(recursive=True)
    (victim,) = [child for child in children if "ImplicitFunc" in " ".join(child.cmdline())]
    victim.kill()
    _, errors = run.communicate(timeout=400)
    assert run.returncode == 0, errors
    require_whole(output, {t["trial"]: t for t in json.loads((output / "s" / "results.json").read_text())["trials"]})
