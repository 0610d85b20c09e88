"""A run whose group may shrink: a node is lost under it, and it goes on with the workers that are left."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

import clray
from clray.config import Config
from clray.training.metrics import read_metrics

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.long,
    # Ray's elastic policy imports Ray Data, which warns of its own defaults (2.60).
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
NUM_EPOCHS = 12


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def test_a_group_goes_on_with_the_workers_that_a_lost_node_leaves(
    cluster: Cluster, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    lost = cluster.add_node(num_cpus=1)
    cluster.add_node(num_cpus=1)

    class Loses(clray.Observer):
        def epoch(self, metrics: dict[str, float]) -> None:
            if metrics["epoch"] == 2:
                thread = threading.Thread(target=cluster.remove_node, args=(lost,), kwargs={"allow_graceful": False})
                thread.start()

    train = {
        "num_workers": [1, 3],
        "num_epochs": NUM_EPOCHS,
        "global_batch_size": 32,
        "cpus_per_worker": 1,
        "max_failures": 2,
    }
    config = tiny_config(train=train, clusters={"source": "labels"}, output=str(tmp_path))
    run = clray.train(config, name="r", observer=Loses())
    history = read_metrics(run.folder)
    sizes = [int(metrics["train/num_workers"]) for metrics in history]
    assert [metrics["epoch"] for metrics in history] == list(range(1, NUM_EPOCHS + 1))
    assert sizes[0] == 3
    assert sizes[-1] == 2
    assert sorted(sizes, reverse=True) == sizes
