"""What a sweep tells of itself, read back where others read it."""

import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from clray.cli.status import show_sweeps
from clray.config import Config
from clray.ray_runtime.cluster import start_ray
from clray.sweeps.book import TrialBook
from clray.sweeps.search_space import plan_sweep
from clray.sweeps.watching import STATES, Tally, Watch, read_boards

METRIC = "eval/linear_accuracy"


@dataclass(eq=False)
class Record:
    """A trial's record, as far as it is counted; tells how often it was asked for its role."""

    index: int
    is_reference: bool
    asked: list[int]
    state: str = "pending"
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def point(self) -> SimpleNamespace:
        return SimpleNamespace(index=self.index)

    @property
    def role(self) -> SimpleNamespace:
        self.asked.append(self.index)
        return SimpleNamespace(is_reference=self.is_reference)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_kept_is_what_a_count_of_all_would_give(seed: int) -> None:
    draw, records, tally = random.Random(seed), [], Tally(METRIC)
    for _ in range(400):
        if not records or draw.random() < 0.1:
            records.append(Record(len(records), draw.random() < 0.3, []))
        changed = draw.choice(records)
        changed.state = draw.choice(STATES)
        changed.metrics = {METRIC: draw.random()} if draw.random() < 0.7 else {}
        tally.take(records, changed)
        for state in STATES[1:]:
            assert tally.counts[state] == sum(each.state == state for each in records)
        ranks = [(not each.is_reference, each.metrics[METRIC]) for each in records if METRIC in each.metrics]
        assert tally.best_rank == max(ranks, default=None)


def test_a_report_of_one_trial_does_not_look_at_all() -> None:
    asked: list[int] = []
    records = [Record(number, False, asked, "finished", {METRIC: number / 1000}) for number in range(1000)]
    tally = Tally(METRIC)
    tally.take(records, records[0])
    asked.clear()
    for record in records[:-1]:
        tally.take(records, record)
    assert len(asked) <= 1000
    assert tally.best is records[-1]


def test_status_reads_the_boards_without_torch() -> None:
    modules = "clray.cli.status, clray.sweeps.watching, clray.ray_runtime.cluster"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    start_ray(dashboard=True)
    yield
    ray.shutdown()


@pytest.fixture
def watch(ray_cluster: None) -> Iterator[Watch]:  # noqa: ARG001
    watch = Watch("s", 3, METRIC)
    yield watch
    ray.kill(watch.board)
    while read_boards():
        time.sleep(0.1)


def scrape() -> str:
    """What Prometheus gets from this node."""
    (node,) = ray.nodes()
    with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=5) as answer:
        return answer.read().decode()


@pytest.mark.slow
def test_the_board_and_prometheus_show_the_trials(
    watch: Watch, tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # this process has joined a cluster already
    config = tiny_config(search_space=[{"clusters.num_clusters": {"grid_search": [2, 3, 4]}}])
    records = TrialBook(config, plan_sweep(config), tmp_path).records
    records[0].state, records[0].metrics = "finished", {"epoch": 3, METRIC: 0.5}
    records[1].state = "running"
    records[1].metrics = {"epoch": 1, METRIC: 0.25, "train/samples_per_second": 123.0, "recluster/age_epochs": 2.0}
    watch.update(records, records[1])

    show_sweeps()
    assert capsys.readouterr().out.split() == [
        "sweep", "pending", "running", "finished", "minutes", "best", "s", "1", "1", "1", "0", "k=2",
    ]  # fmt: skip
    (board,) = read_boards()
    assert {state: board[state] for state in ("pending", "running", "finished")} == dict.fromkeys(
        ("pending", "running", "finished"), 1
    )
    assert (board["best"], board[METRIC]) == ("k=2", 0.5)

    deadline = time.monotonic() + 180
    while "ray_clray_cluster_age_epochs{" not in (shown := scrape()):
        assert time.monotonic() < deadline, "the gauges do not arrive"
        time.sleep(1)
    values = {
        name: [float(line.split()[-1]) for line in shown.splitlines() if line.startswith(f"ray_clray_{name}{{")]
        for name in ("samples_per_second", "cluster_age_epochs", "trials")
    }
    assert values["samples_per_second"] == [123.0]
    assert values["cluster_age_epochs"] == [2.0]
    assert sum(values["trials"]) == 3


@pytest.mark.slow
def test_a_board_whose_process_dies_is_written_anew(
    watch: Watch, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny_config(search_space=[{"clusters.num_clusters": {"grid_search": [2, 3]}}])
    records = TrialBook(config, plan_sweep(config), tmp_path).records
    watch.update(records, records[0])
    assert [board["pending"] for board in read_boards()] == [3]
    os.kill(ray.get(watch.board.__ray_call__.remote(lambda _: os.getpid())), signal.SIGKILL)
    records[1].state = "running"
    deadline = time.monotonic() + 180
    while [board["running"] for board in read_boards()] != [1]:
        assert time.monotonic() < deadline, "the board stays away"
        watch.update(records, records[1])
        time.sleep(0.2)
