"""A clustering whose shards find no place on the cluster is refused before Ray is asked to place them."""

import numpy as np
import pytest
import ray

import clray
from clray.errors import UserError
from clray.ray_runtime import cluster

VECTORS = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node with the label and two without answer in place of Ray's; nothing can be placed there."""
    found = [
        {"NodeID": f"{number:056x}", "Alive": True, "Resources": {"CPU": 2.0}, "Labels": {"pool": pool}}
        for number, pool in enumerate(["cpu", "train", "train"])
    ]
    monkeypatch.setattr(ray, "nodes", lambda: found)
    monkeypatch.setattr(cluster, "start_ray", lambda **_: None)


@pytest.mark.usefixtures("nodes")
def test_shards_are_counted_on_the_nodes_that_carry_their_labels() -> None:
    refusal = r"the clustering needs 3 k-means shards of 1 CPU on nodes with the labels \{'pool': 'cpu'\}, and does not"
    with pytest.raises(UserError, match=refusal):
        clray.cluster(VECTORS, 3, num_shards=3, node_labels={"pool": "cpu"})
    with pytest.raises(UserError, match=r"node_labels: no node of the Ray cluster carries the labels \{'pool': 'gpu'"):
        clray.cluster(VECTORS, 3, num_shards=1, node_labels={"pool": "gpu"})
    with pytest.raises(UserError, match=r"needs 7 k-means shards of 1 CPU on nodes, and does not .*Lower num_shards"):
        clray.cluster(VECTORS, 3, num_shards=7)
