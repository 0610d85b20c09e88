"""Shards on two nodes, a second raylet on this machine: where they are put, what crosses between, and a node lost."""

import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from clray.config.sections import KMeansConfig
from clray.errors import UserError, WaitedTooLong
from clray.kmeans.attempts import Attempt
from clray.kmeans.lloyd import Clustering
from clray.kmeans.service import KMeansClient, KMeansService
from clray.kmeans.shards.actors import start_shard_actors
from clray.kmeans.shards.ray_shards import RayShards
from clray.kmeans.shards.waiting import Watch
from clray.kmeans.vectors.source import open_vectors
from clray.training.workers.opening import start_service

pytestmark = [pytest.mark.slow, pytest.mark.fault]
DIM, NUM_CLUSTERS = 16, 50
VECTORS = np.random.default_rng(1).normal(size=(1000, DIM)).astype(np.float32)


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


def test_shards_that_no_node_is_left_for_are_told_and_end_the_clustering(cluster: Cluster) -> None:
    """The node that is left has room for one; its own shard answers."""
    node = cluster.add_node(num_cpus=1)
    ray.init(address=cluster.address, log_to_driver=False)
    config = KMeansConfig(num_shards=2, cpus_per_shard=1, timeout_seconds=40)
    actors, told = start_shard_actors(config), []
    where = nodes_of(actors)
    shards = RayShards(actors, [ray.put(VECTORS[:500]), ray.put(VECTORS[500:])], [500, 500])
    shards.watch = Watch(actors, config, say=told.append, section="kmeans.")
    shards.accumulate([VECTORS[:10]])
    lost = where.index(node.node_id)
    cluster.remove_node(node, allow_graceful=False)
    with pytest.raises(WaitedTooLong, match=r"waited 40 s \(kmeans\.timeout_seconds\) for the sums of an iteration: "):
        shards.accumulate([VECTORS[:10]])
    why = rf"Ray has not placed shard {lost} for \d+ s: it needs 1 CPU, and the largest free node has nothing"
    assert re.fullmatch(rf"waiting for the sums of an iteration: 1 of 2 k-means shards answer; {why}", told[-1])


def test_shards_are_put_where_they_are_told_and_what_crosses_is_as_reckoned(cluster: Cluster) -> None:
    """Two workers on the head; the shards' node has the labels asked for. The formulas are in kmeans_cost.py."""
    cluster.add_node(num_cpus=1, labels={"pool": "cpu"})
    ray.init(address=cluster.address, log_to_driver=False)
    config = KMeansConfig(num_shards=2, cpus_per_shard=0.5, num_iterations=4, tolerance=0, node_labels={"pool": "cpu"})
    with pytest.raises(UserError, match=r"no node of the Ray cluster carries the labels \{'pool': 'gpu'\}"):
        start_service(config.model_copy(update={"node_labels": {"pool": "gpu"}}))
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    service = KMeansService.options(scheduling_strategy=here).remote(config)
    vectors = np.random.default_rng(0).normal(size=(4000, DIM)).astype(np.float32)

    def refresh(node: NodeAffinitySchedulingStrategy, initial: list[np.ndarray] | None) -> Clustering:
        @ray.remote(num_cpus=0, scheduling_strategy=node)
        def work(rank: int) -> Clustering:
            attempt = Attempt(node.node_id, int(initial is not None))
            client = KMeansClient(service, config, attempt, rank=rank, world_size=2)
            own = np.split(vectors, 2)[rank]
            return client(own, (NUM_CLUSTERS,), nested=False, seed=1, initial=initial).result()[0]

        return ray.get([work.remote(rank) for rank in range(2)])[0]

    centroid_bytes, sum_bytes = 4 * NUM_CLUSTERS * DIM, 8 * NUM_CLUSTERS * (DIM + 1)
    size_bytes = 2 * 8 * NUM_CLUSTERS  # of both shards, once, and to both workers
    far = refresh(here, None)
    shared = (far.num_iterations + 1) * centroid_bytes + far.num_iterations * 2 * sum_bytes + size_bytes
    crossed = 4 * vectors.size + 4 * len(vectors)
    assert far.network_bytes == crossed + centroid_bytes + shared, "vectors out, ids and the start back"

    (other,) = {node["NodeID"] for node in ray.nodes()} - {here.node_id}
    near = refresh(NodeAffinitySchedulingStrategy(other, soft=False), [far.centroids])
    shared = (near.num_iterations + 1) * centroid_bytes + near.num_iterations * 2 * sum_bytes + size_bytes
    ends = 2 * 2 * centroid_bytes + size_bytes
    assert near.network_bytes == shared + ends, "vectors and ids stay where they are"
