"""A cluster of three hosts with addresses of their own: trained over, and hosts that die, drop off the network or are
the head.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from mlflow import MlflowClient

from clray.training.metrics import read_metrics
from tests import hosts as machines
from tests.conftest import TINY
from tests.hosts import Host, start_cluster, start_head, wait_for_nodes

_missing = machines.missing()
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(_missing is not None, reason=str(_missing)),
]
CLRAY = (sys.executable, "-m", "clray")
NUM_EPOCHS = 40


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    """A head and two nodes, of one core each."""
    with machines.network(3) as made:
        for host in made:
            # A head that comes back finds what it knew in the shared folder.
            persisted = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(tmp_path / "gcs")}
            host.environment = host.environment | persisted
        (tmp_path / "gcs").mkdir()
        start_cluster(made, num_cpus=1)
        yield made


def write_config(folder: Path, **sections: dict) -> Path:
    tree = {name: {**values, **sections.pop(name, {})} for name, values in TINY.items()} | sections
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    return path


def sweep_config(folder: Path) -> Path:
    """Four trials of one worker, each of a whole core."""
    return write_config(
        folder,
        train={"num_epochs": NUM_EPOCHS, "cpus_per_worker": 0.9, "checkpoint_every_epochs": 1},
        data={"max_train_images": 1000},
        sweep={"max_failures": 3},
        search_space={"objective.temperature": {"grid_search": [0.1, 0.2, 0.3, 0.5]}},
    )


def start_sweep(host: Host, config: Path, output: Path, *options: str) -> subprocess.Popen:
    return host.popen(
        *CLRAY, "sweep", config, "-o", output, "--name", "s", "--json", *options,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for_epochs(run: subprocess.Popen, output: Path, count: int) -> None:
    """Until the trials together have trained as many epochs."""
    trials = output / "s" / "trials"
    while sum(len(read_metrics(folder)) for folder in trials.glob("*")) < count:
        assert run.poll() is None, run.communicate()
        time.sleep(0.05)


def statuses(output: Path) -> dict[str, str]:
    """Of the MLflow runs, by clray's own id."""
    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    return {run.data.tags["clray.id"]: run.info.status for run in runs}


def require_whole(output: Path) -> None:
    """Every trial finished once, with every epoch once, on disk and in MLflow."""
    results = json.loads((output / "s" / "results.json").read_text())
    assert [trial["state"] for trial in results["trials"]] == ["finished"] * 4, results
    client = MlflowClient(f"sqlite:///{output}/mlflow.db")
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
    assert len(runs) == 5
    assert statuses(output) == dict.fromkeys(("s", "s/0", "s/1", "s/2", "s/3"), "FINISHED")
    epochs = list(range(1, NUM_EPOCHS + 1))
    for run in runs:
        if run.data.tags["clray.kind"] == "trial":
            assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == epochs
    for trial in results["trials"]:
        assert [metrics["epoch"] for metrics in read_metrics(Path(trial["folder"]))] == epochs


def require_nothing_left(hosts: list[Host], seconds: float = 60) -> None:
    """No actor of clray's and no worker of a run is left on any host."""
    deadline = time.monotonic() + seconds
    while True:
        left = [
            title
            for host in hosts
            for title in host.titles()
            if any(name in title for name in ("ImplicitFunc", "ShardActor", "KMeansService", "RayTrainWorker", "Board"))
        ]
        if not left:
            return
        assert time.monotonic() < deadline, left
        time.sleep(1)


@pytest.mark.long
def test_a_run_trains_over_two_hosts(hosts: list[Host], tmp_path: Path) -> None:
    """With gloo between them, and k-means shards on both."""
    config = write_config(tmp_path, train={"num_workers": 2, "cpus_per_worker": 0.8, "num_epochs": 4})
    done = hosts[0].call(*CLRAY, "train", config, "-o", tmp_path / "out", "--name", "r", "--json")
    assert done.returncode == 0, done.stderr
    metrics = read_metrics(tmp_path / "out" / "r")
    assert [each["epoch"] for each in metrics] == [1, 2, 3, 4]
    assert metrics[-1]["recluster/network_bytes"] > 0
    assert "8265, is open to its network without a token" in done.stderr
    done = hosts[0].call("env", "RAY_AUTH_MODE=", f"RAY_AUTH_TOKEN=another-{'0' * 32}", *CLRAY, "status")
    assert done.returncode == 0
    assert "8265, is open to its network without a token" in done.stderr, "whatever token this process has"
    require_nothing_left(hosts)


def test_a_folder_that_one_host_does_not_share_is_refused(hosts: list[Host], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert hosts[2].call("mount", "-t", "tmpfs", "none", tmp_path / "out").returncode == 0
    done = hosts[0].call(*CLRAY, "sweep", sweep_config(tmp_path), "-o", tmp_path / "out", "--name", "s")
    assert done.returncode == 2
    assert f"not on {hosts[2].address} (its file cannot be seen from here)" in done.stderr
    assert "not one folder on all 3 nodes" in done.stderr
    assert not (tmp_path / "out" / "s").exists() or not any((tmp_path / "out" / "s").iterdir())


@pytest.mark.long
def test_trials_go_where_they_fit_and_shards_where_they_are_told(tmp_path: Path) -> None:
    """The other host has no CPU for a trial; shards ask for none."""
    config = write_config(
        tmp_path,
        train={"num_epochs": NUM_EPOCHS, "cpus_per_worker": 0.5},
        kmeans={"node_labels": {"pool": "cpu"}, "cpus_per_shard": 0},
        search_space={"objective.temperature": {"grid_search": [0.1, 0.2, 0.3, 0.5]}},
    )
    with machines.network(2) as (head, other):
        start_cluster([head, other], num_cpus=1, others=("--num-cpus=0", "--labels=pool=cpu"))
        run = start_sweep(head, config, tmp_path / "out")
        wait_for_epochs(run, tmp_path / "out", 20)
        there = {host: [title for title in host.titles() if "ray::" in title] for host in (head, other)}
        output, errors = run.communicate(timeout=500)
        assert run.returncode == 0, errors
        assert [trial["state"] for trial in json.loads(output)["trials"]] == ["finished"] * 4

    def count(host: Host, actor: str) -> int:
        return sum(actor in title for title in there[host])

    assert (count(head, "ImplicitFunc"), count(other, "ImplicitFunc")) == (2, 0)
    assert (count(head, "ShardActor"), count(other, "ShardActor")) == (0, 2)


@pytest.mark.long
def test_a_killed_host_costs_a_sweep_no_trial(hosts: list[Host], tmp_path: Path) -> None:
    run = start_sweep(hosts[0], sweep_config(tmp_path), tmp_path / "out")
    wait_for_epochs(run, tmp_path / "out", 20)
    hosts[2].kill()
    _, errors = run.communicate(timeout=500)
    assert run.returncode == 0, errors
    assert "Traceback" not in errors
    require_whole(tmp_path / "out")
    require_nothing_left(hosts)


@pytest.mark.long
def test_a_host_off_the_network_for_a_minute_costs_a_sweep_no_trial(hosts: list[Host], tmp_path: Path) -> None:
    run = start_sweep(hosts[0], sweep_config(tmp_path), tmp_path / "out")
    wait_for_epochs(run, tmp_path / "out", 20)
    hosts[2].cut()
    time.sleep(60)
    hosts[2].join()
    _, errors = run.communicate(timeout=500)
    assert run.returncode == 0, errors
    require_whole(tmp_path / "out")
    require_nothing_left(hosts)


@pytest.mark.long
def test_a_sweep_goes_on_after_its_head_was_started_anew(hosts: list[Host], tmp_path: Path) -> None:
    """The driver dies with the head's host; the other hosts find the new head, and the sweep is resumed there."""
    head, *others = hosts
    config = sweep_config(tmp_path)
    run = start_sweep(head, config, tmp_path / "out")
    wait_for_epochs(run, tmp_path / "out", 20)
    head.kill()
    run.communicate(timeout=30)
    head.boot()
    start_head(head, 1)
    wait_for_nodes(head, 3)
    require_nothing_left(others)
    done = start_sweep(head, config, tmp_path / "out", "--resume")
    _, errors = done.communicate(timeout=500)
    assert done.returncode == 0, errors
    require_whole(tmp_path / "out")
    require_nothing_left(hosts)


@pytest.mark.long
def test_a_driver_on_another_host_goes_on_with_a_head_that_remembers(hosts: list[Host], tmp_path: Path) -> None:
    head, *others = hosts
    run = start_sweep(others[0], sweep_config(tmp_path), tmp_path / "out")
    wait_for_epochs(run, tmp_path / "out", 20)
    head.kill()
    head.boot()
    start_head(head, 1)
    _, errors = run.communicate(timeout=500)
    assert run.returncode == 0, errors
    require_whole(tmp_path / "out")
    require_nothing_left(hosts)


@pytest.mark.long
@pytest.mark.parametrize(
    ("comes_back", "reason"),
    [(False, "has not answered for 50 s"), (True, "was restarted and has lost this work")],
)
def test_a_driver_whose_head_is_lost_says_so_and_its_sweep_can_be_resumed(
    hosts: list[Host], tmp_path: Path, comes_back: bool, reason: str
) -> None:
    head, *others = hosts
    config = sweep_config(tmp_path)
    run = start_sweep(others[0], config, tmp_path / "out")
    wait_for_epochs(run, tmp_path / "out", 20)
    head.kill()
    if comes_back:
        head.environment = {name: value for name, value in head.environment.items() if "gcs_storage" not in name}
        head.boot()
        start_head(head, 1)
    _, errors = run.communicate(timeout=75)
    assert run.returncode == 1
    (failed,) = [line for line in errors.splitlines() if line.startswith("failed:")]
    assert reason in failed
    assert errors.splitlines()[-1].startswith("Resume with: clray sweep")
    assert "Traceback" not in errors
    assert set(statuses(tmp_path / "out").values()) <= {"KILLED", "FINISHED"}

    for host in hosts:
        host.kill()
        host.boot()
    start_cluster(hosts, num_cpus=1)
    done = start_sweep(others[0], config, tmp_path / "out", "--resume")
    _, errors = done.communicate(timeout=500)
    assert done.returncode == 0, errors
    require_whole(tmp_path / "out")
    require_nothing_left(hosts)


@pytest.mark.long
def test_a_sweep_of_worker_groups_spans_hosts(hosts: list[Host], tmp_path: Path) -> None:
    config = write_config(
        tmp_path,
        clusters={"source": "labels"},
        train={"num_workers": 2, "cpus_per_worker": 0.8},
        search_space={"objective.temperature": {"grid_search": [0.1, 0.5]}},
    )
    run = start_sweep(hosts[0], config, tmp_path / "out")
    printed, errors = run.communicate(timeout=500)
    assert run.returncode == 0, errors
    assert [trial["state"] for trial in json.loads(printed)["trials"]] == ["finished"] * 2
    require_nothing_left(hosts)


REFRESH = """
import numpy as np, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On
from clray.kmeans.attempts import Attempt
from clray.kmeans.service import KMeansClient, KMeansService
from clray.config.sections import KMeansConfig

ray.init(logging_level="ERROR")
here = ray.get_runtime_context().get_node_id()
others = sorted({node["NodeID"] for node in ray.nodes()} - {here})
config = KMeansConfig(num_shards=3, cpus_per_shard=0.5, num_iterations=10, tolerance=0)
service = KMeansService.options(scheduling_strategy=On(here, soft=False)).remote(config)

def refresh(seed):
    @ray.remote(num_cpus=0)
    def work(rank):
        vectors = np.random.default_rng(rank).normal(size=(30_000, 64)).astype(np.float32)
        client = KMeansClient(service, config, Attempt("run", 0), rank=rank, world_size=2)
        return client(vectors, (1500,), nested=False, seed=seed, initial=None).result()[0].network_bytes
    return ray.get([work.options(scheduling_strategy=On(node, soft=False)).remote(rank)
                    for rank, node in enumerate(others)])[0]

refresh(0)  # starts the processes
print("ready", flush=True)
input()
print(refresh(1), flush=True)
input()
"""


@pytest.mark.long
def test_a_refresh_costs_the_network_what_is_reported(hosts: list[Host]) -> None:
    """Counted on the interfaces, each byte where it leaves and where it arrives; Ray's own messages come on top."""
    script = hosts[0].popen(sys.executable, "-c", REFRESH, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert script.stdin is not None
    assert script.stdout is not None
    assert script.stdout.readline() == "ready\n"
    before = sum(host.num_bytes() for host in hosts)
    script.stdin.write("\n")
    script.stdin.flush()
    reported = int(script.stdout.readline())
    counted = (sum(host.num_bytes() for host in hosts) - before) / 2
    script.communicate("\n", timeout=60)
    assert reported > 20e6
    assert reported == pytest.approx(counted, rel=0.1)
