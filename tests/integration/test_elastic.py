"""A run whose group may change its size: a node is lost under it, another comes, and its command is killed."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
import torch
import yaml
from ray.cluster_utils import Cluster

import clray
from clray.config import Config
from clray.training.checkpoint import newest_checkpoint
from clray.training.metrics import read_metrics
from clray.training.workers import group
from tests.conftest import TINY

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.long,
    # Ray's elastic policy imports Ray Data, which warns of its own defaults (2.60).
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
NUM_EPOCHS, EVERY = 24, 8
"""Epochs, and those from one clustering to the next."""
# Only the main thread, which trains, may make a node by Ray's cluster utility.
ADD_NODE = [
    sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus", "1",
    "--object-store-memory", str(80 * 10**6),
]  # fmt: skip


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_group_beside_shards_shrinks_with_a_lost_node_and_grows_with_a_new_one(
    cluster: Cluster, tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each node has room for a worker and a shard, and no more: both shards and a third worker need three."""
    monkeypatch.setattr(group, "GROW_SECONDS", 3.0)
    lost = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)
    seen: dict[int, torch.Tensor] = {}
    added: list[subprocess.Popen[bytes]] = []

    class Changes(clray.Observer):
        """Loses a node after the second epoch, and adds one once the group has gone on with two workers."""

        has_lost = has_added = False

        def epoch(self, metrics: dict[str, float]) -> None:
            checkpoint = newest_checkpoint(tmp_path / "r")
            if checkpoint is not None:
                seen[checkpoint["epoch"]] = checkpoint["cluster_ids"]
            if metrics["epoch"] == 2 and not self.has_lost:
                self.has_lost = True
                threading.Thread(target=cluster.remove_node, args=(lost,), kwargs={"allow_graceful": False}).start()
            if metrics["train/num_workers"] == 2 and not self.has_added:
                self.has_added = True
                added.append(subprocess.Popen([*ADD_NODE, "--address", cluster.address]))

    config = tiny_config(
        train={
            "num_workers": [1, 3],
            "num_epochs": NUM_EPOCHS,
            "cpus_per_worker": 0.6,
            "max_failures": 2,
            "num_checkpoints": 3,
        },
        kmeans={"cpus_per_shard": 0.3},
        recluster={"warmup_epochs": 1, "every_epochs": EVERY},
        objective={"name": "tests.training.own_objectives:Slow"},
        allow_user_modules=True,
        output=str(tmp_path),
    )
    try:
        run = clray.train(config, name="r", observer=Changes())
    finally:
        for each in added:
            each.terminate()
            each.wait()
    history = read_metrics(run.folder)
    assert [metrics["epoch"] for metrics in history] == list(range(1, NUM_EPOCHS + 1))
    sizes = [int(metrics["train/num_workers"]) for metrics in history]
    changes = [size for size, before in zip(sizes, [0, *sizes], strict=False) if size != before]
    assert changes == [3, 2, 3]
    clustered = [int(metrics["epoch"]) for metrics in history if "recluster/seconds" in metrics]
    assert len(clustered) >= (NUM_EPOCHS - 1) // EVERY
    first = [ids for epoch, ids in sorted(seen.items()) if clustered[0] <= epoch < clustered[1]]
    assert len(first) > 2, "before and after the loss"
    for each in first:
        assert torch.equal(each, first[0]), "the clusters of the whole data, whoever holds which of it"


def test_a_group_of_changing_size_resumes_after_its_command_was_killed(
    cluster: Cluster, tmp_path: Path
) -> None:  # fmt: skip
    """The cluster goes on, and Ray Data's coordinator there holds what the killed command asked for."""
    cluster.add_node(num_cpus=1)
    train = {**TINY["train"], "num_workers": [1, 2], "num_epochs": 6, "cpus_per_worker": 1}
    tree = TINY | {
        "train": train,
        "clusters": {"source": "labels"},
        "objective": {"name": "tests.training.own_objectives:Slow"},
        "allow_user_modules": True,
        "output": str(tmp_path),
    }
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    command = [sys.executable, "-m", "clray", "train", str(config), "--name", "r"]
    killed = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)})
    try:
        while len(read_metrics(tmp_path / "r")) < 2:
            assert killed.poll() is None
            time.sleep(0.1)
    finally:
        killed.kill()
        killed.wait()
    run = clray.train(config, name="r", resume=True)
    history = read_metrics(run.folder)
    assert [metrics["epoch"] for metrics in history] == list(range(1, 7))
    assert history[-1]["train/num_workers"] == 2
