"""The library: a run and a sweep as functions that return values or raise, and print nothing."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
import torch
import yaml

from clray import UserError, sweep, train
from clray.config import Config
from clray.progress import Observer
from tests.conftest import TINY

MakeConfig = Callable[..., Config]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "checkpoint.pt", weights_only=True)["model"]


@pytest.mark.parametrize("kind", ["path", "text", "tree", "config"])
@pytest.mark.slow
def test_a_run_takes_a_path_a_tree_or_a_config_and_prints_nothing(
    kind: str,
    tiny_config: MakeConfig,
    tiny_yaml: Callable[..., Path],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    sources = {
        "path": lambda: tiny_yaml(),
        "text": lambda: str(tiny_yaml()),
        "tree": lambda: TINY,
        "config": tiny_config,
    }
    run = train(sources[kind](), {"output": str(tmp_path / "out"), "train.num_epochs": 2}, debug=True)
    assert run.folder.parent == (tmp_path / "out").resolve()
    assert [epoch["epoch"] for epoch in run.history] == [1, 2]
    assert run.metrics["eval/linear_accuracy"] > 0
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_debugging_trains_in_this_process_and_thread_without_ray_to_the_same_weights(
    tiny_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    script = f"""
import sys, threading
from clray import train
from clray.progress import Observer
seen = set()
class Seen(Observer):
    def step(self, step, steps_per_epoch):
        seen.add(threading.current_thread().name)
train({str(tiny_yaml())!r}, {{"output": {str(tmp_path)!r}}}, name="debugged", debug=True, observer=Seen())
assert seen == {{"MainThread"}}, seen
import ray
assert not ray.is_initialized()
train({str(tiny_yaml())!r}, {{"output": {str(tmp_path)!r}}}, name="plain")
assert ray.is_initialized()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
    debugged, plain = weights(tmp_path / "debugged"), weights(tmp_path / "plain")
    assert all(torch.equal(debugged[name], plain[name]) for name in plain)


def test_debugging_refuses_several_workers(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"debug: one process holds one worker, and train\.num_workers=2"):
        train(TINY, {"output": str(tmp_path / "out"), "train.num_workers": 2}, debug=True)


@pytest.mark.parametrize(
    ("source", "overrides", "message"),
    [
        ({"objective": {"temprature": 1}}, {}, "Did you mean 'objective.temperature'"),
        (TINY, {"objective.temprature": 1}, "Did you mean 'objective.temperature'"),
        (TINY, {"clusters.num_clusters": 1_000_000}, "at most 96"),
        (TINY, {"data.name": "parquet", "data.train_path": "nowhere"}, "no such file or folder: nowhere"),
        ("nowhere.yaml", {}, "no such config file"),
        (3, {}, "expected a path, a dict or a Config; got 3"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(
    source: object, overrides: dict, message: str, tmp_path: Path
) -> None:  # fmt: skip
    if isinstance(source, dict) and "objective" not in source:
        overrides = {**overrides, "output": str(tmp_path / "out")}
    for call in (train, sweep):
        space = {"search_space": {"objective.temperature": {"grid_search": [0.1]}}}
        given = {**source, **space} if isinstance(source, dict) else source
        with pytest.raises(UserError, match=message):
            call(given, overrides)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_failing_observer_leaves_no_run_open(tmp_path: Path) -> None:
    class Failing(Observer):
        def epoch(self, metrics: object) -> None:  # noqa: ARG002
            raise RuntimeError("the observer failed")

    with pytest.raises(RuntimeError, match="the observer failed"):
        train(TINY, {"output": str(tmp_path)}, name="failing", debug=True, observer=Failing())
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("clray").experiment_id])
    assert run.info.status == "FAILED"
    resumed = train(TINY, {"output": str(tmp_path)}, name="failing", resume=True, debug=True)
    assert [epoch["epoch"] for epoch in resumed.history] == [1, 2, 3]


@pytest.mark.slow
def test_a_sweep_gives_a_table_and_its_best_trial(tmp_path: Path) -> None:
    objectives = ["cl-infonce", "tests.training.own_objectives:Again"]
    tree = {**TINY, "allow_user_modules": True, "search_space": {"objective.name": {"grid_search": objectives}}}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    result = sweep(path, {"output": str(tmp_path / "out")})
    assert sorted(result.table["objective.name"]) == objectives
    assert result.table["train/loss"].nunique() == 1, "an objective of the user's that does the same"
    assert result.table["eval/linear_accuracy"].is_monotonic_decreasing
    assert result.num_open == 0
    assert str(result.best) == result.table["folder"][0]
    deadline = time.monotonic() + 60
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, "the sweep's k-means shards hold their CPUs after it"
        time.sleep(0.2)
