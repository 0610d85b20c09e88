"""What an iteration of the distributed k-means costs, and a check of that against a measured one.

    python scripts/benchmarks/kmeans_cost.py

N vectors of d dimensions in S shards on M nodes, K clusters, e bytes per stored coordinate. Per iteration

    search     2 N K d operations, spread evenly over the shards: nearly all of the time for K above a few hundred
    sums       16 N d bytes through memory (a float64 copy is written and read), over the shards
    disk       e N d bytes, over the shards; none for a slice that fits the shard's memory; read ahead of the search
    to shard   4 K d bytes of centroids: from the driver's node to each of the M - 1 others, one after the other; then
               into the memory of each GPU
    from shard 8 K (d + 1) bytes of sums and counts, whatever N is, out of the GPU's memory; above 8 shards added in a
               tree of fan-in 8, so that no process receives more than 8 of them at a time
    adding     3 arrays of that size through memory for each that arrives, in each level of the tree
    update     4 of them through the driver's memory: divided, rounded to float32, written for the shards to fetch

The time is that of the slower of search + sums and disk, plus that of all others, the levels of the tree one after the
other. The last search, which assigns every vector, adds one iteration and 4 N bytes of ids.

A refresh of I iterations while training, over the network between nodes alone (`recluster/network_bytes`); where all is
on one node it is 0:

    vectors    4 n d for each slice of n vectors whose shard is on another node; none where nodes have their own shards
    centroids  4 K d for each node with shards other than the service's, I + 1 times
    sums       8 K (d + 1) for each shard away from the service, I times
    sizes      8 K from each such shard, once
    ids        4 n back for each slice whose vectors crossed, straight to its worker; of nested clusters the finest
    ends       4 K d to and from each worker away from the service: where to start, and the result, with 8 K of sizes;
               of nested clusters also 4 K to it, the next coarser cluster of each
"""

import json
import math
import os
import time
from dataclasses import asdict, dataclass

import faiss
import numpy as np
import ray
from kmeans import ray_kmeans, start_two, unit_vectors

from clray.kmeans.options import KMeansOptions
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.ray_shards import FAN_IN
from clray.ray_runtime.cluster import start_ray


@dataclass(frozen=True)
class Machine:
    """Rates of one shard, and of the network between two processes.

    Attributes:
        flops: of the search, operations per second.
        sum_bytes: bytes per second through memory while sums are added up.
        disk_bytes, network_bytes: per second.
        device_bytes: per second between a shard's process and its GPU.
        message_seconds: of one call to an actor, beyond its bytes.
    """

    flops: float
    sum_bytes: float
    disk_bytes: float
    network_bytes: float
    device_bytes: float
    message_seconds: float


@dataclass(frozen=True)
class Cost:
    """Of one iteration; seconds, and bytes per shard."""

    search_seconds: float
    sum_seconds: float
    disk_seconds: float
    upload_seconds: float
    tree_seconds: float
    total_seconds: float
    disk_bytes_per_shard: float
    bytes_to_shard: int
    bytes_from_shard: int


def iteration_cost(
    num_vectors: int,
    dim: int,
    num_clusters: int,
    num_shards: int,
    machine: Machine,
    *,
    num_nodes: int = 1,
    itemsize: int = 4,
    is_resident: bool = True,
) -> Cost:
    """The formulas of this file's head."""
    rows = num_vectors / num_shards
    search = 2 * rows * num_clusters * dim / machine.flops
    sums = 16 * rows * dim / machine.sum_bytes
    read = 0.0 if is_resident else itemsize * rows * dim
    to_shard, from_shard = 4 * num_clusters * dim, 8 * num_clusters * (dim + 1)
    levels = max(1, math.ceil(math.log(num_shards, FAN_IN)))
    arriving = min(num_shards, FAN_IN) * from_shard
    upload = max(1, num_nodes - 1) * to_shard / machine.network_bytes + to_shard / machine.device_bytes
    upload += 4 * from_shard / machine.sum_bytes + machine.message_seconds
    level = arriving / machine.network_bytes + 3 * arriving / machine.sum_bytes + machine.message_seconds
    tree = from_shard / machine.device_bytes + levels * level
    return Cost(
        search_seconds=search,
        sum_seconds=sums,
        disk_seconds=read / machine.disk_bytes,
        upload_seconds=upload,
        tree_seconds=tree,
        total_seconds=max(search + sums, read / machine.disk_bytes) + upload + tree,
        disk_bytes_per_shard=read,
        bytes_to_shard=to_shard,
        bytes_from_shard=from_shard,
    )


def calibrate() -> Machine:
    """Rates of one core here; the object store, through which local messages pass, for the network."""
    vectors, centroids = unit_vectors(50_000), unit_vectors(4096)[:1000].copy()
    faiss.omp_set_num_threads(1)
    shard = FaissShard(vectors, num_threads=1)
    shard.accumulate([centroids])
    starts = time.perf_counter()
    faiss.knn(vectors, centroids, 1)
    search = time.perf_counter() - starts
    # What is left of a pass with one centroid, whose search is nearly free.
    starts = time.perf_counter()
    shard.accumulate([centroids[:1]])
    sums = time.perf_counter() - starts
    block = np.zeros(10**8, np.uint8)
    starts = time.perf_counter()
    ray.get(ray.put(block))
    store = time.perf_counter() - starts
    empty = ray.remote(lambda: None)
    ray.get(empty.remote())
    starts = time.perf_counter()
    for _ in range(100):
        ray.get(empty.remote())
    message = (time.perf_counter() - starts) / 100
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    flops, sum_bytes = 2 * 50_000 * 1000 * 128 / search, 16 * 50_000 * 128 / sums
    return Machine(flops, sum_bytes, math.inf, 10**8 / store, math.inf, message)


def main() -> None:
    start_ray()
    here = calibrate()
    print("one core here", json.dumps({name: f"{value:.3g}" for name, value in asdict(here).items()}))
    actors = start_two(os.cpu_count() or 1)
    for num_vectors, num_clusters in ((50_000, 1000), (200_000, 2500)):
        vectors = unit_vectors(num_vectors)
        initial = [vectors[:num_clusters].copy()]
        seconds = []
        for num_iterations in (1, 6):
            start = time.perf_counter()
            ray_kmeans(actors, vectors, KMeansOptions(num_iterations=num_iterations, tolerance=0.0), initial)
            seconds.append(time.perf_counter() - start)
        measured = (seconds[1] - seconds[0]) / 5
        predicted = iteration_cost(num_vectors, 128, num_clusters, 2, here).total_seconds
        print(
            f"{num_vectors} x 128, K={num_clusters}, 2 shards: predicted {predicted:.3f} s per iteration, "
            f"measured {measured:.3f} s, ratio {predicted / measured:.2f}"
        )
    # Assumed, not measured: an H100 at 30 TFLOP/s in FAISS's float32 search, sums on two host cores per GPU at
    # 5 GB/s each, 2 GB/s of disk per GPU, 100 Gbit/s between nodes, 25 GB/s between a process and its GPU.
    gpu = Machine(30e12, 10e9, 2e9, 12.5e9, 25e9, 0.001)
    for is_resident in (True, False):
        cost = iteration_cost(10**9, 256, 100_000, 64, gpu, num_nodes=8, itemsize=2, is_resident=is_resident)
        print(
            f"10^9 x 256 float16, K=100,000, 8 nodes x 8 GPUs, {'in memory' if is_resident else 'from disk'}:",
            json.dumps({name: float(f"{value:.3g}") for name, value in asdict(cost).items()}, indent=2),
        )


if __name__ == "__main__":
    main()
