"""A node that is lost while shards search on it: a second raylet on this machine, ended by SIGKILL."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from clray.kmeans.actors import RayShards, start_shard_actors
from clray.kmeans.vectors import open_vectors
from clray.sections import KMeansConfig

pytestmark = [pytest.mark.slow, pytest.mark.fault]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def nodes_of(actors: list) -> list[str]:
    return ray.get([actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for actor in actors])


def test_the_shards_of_a_lost_node_move_and_repeat_their_part(cluster: Cluster, tmp_path: Path) -> None:
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    actors = start_shard_actors(KMeansConfig(num_shards=2, cpus_per_shard=0.5))
    assert len(set(nodes_of(actors))) == 2, "one shard on each node"

    vectors = np.random.default_rng(1).normal(size=(60_000, 64)).astype(np.float32)
    np.save(tmp_path / "v.npy", vectors)
    parts = open_vectors(tmp_path / "v.npy").split(2)
    shards = RayShards(actors, parts, [len(part) for part in parts])
    initial = [vectors[:20_000]]
    before = shards.accumulate(initial)

    lost = threading.Thread(
        target=lambda: (time.sleep(0.5), cluster.remove_node(node, allow_graceful=False)), daemon=True
    )
    lost.start()
    after = shards.accumulate(initial)
    lost.join()

    assert len(set(nodes_of(actors))) == 1, "both shards on the node that is left"
    np.testing.assert_array_equal(after[0].sums, before[0].sums)
    assert after[0].inertia == before[0].inertia
