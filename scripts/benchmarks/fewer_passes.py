"""Starts and samples of k-means beside plain Lloyd: CPU seconds of one core to within 1 % of its inertia.

    python scripts/benchmarks/fewer_passes.py --vectors 2000000 --clusters 2500 --dim 128

In one process, without Ray. Plain Lloyd makes 20 iterations from random vectors; its inertia is that after them.
"""

import argparse
import json
import time
from typing import Any

import faiss
import numpy as np

from clray.kmeans.kmeans import kmeans
from clray.kmeans.options import KMeansOptions
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import LocalShards


def compare(num_vectors: int, num_clusters: int, dim: int, num_blobs: int) -> None:
    """Ways to within 1 % of plain Lloyd's inertia after 20 iterations: CPU seconds of one core, in this process.

    The time is that of everything until the centroids are there, and of one assignment of all vectors. "passes" is the
    same in units of one of plain Lloyd's passes.
    """
    faiss.omp_set_num_threads(1)
    shards = LocalShards([FaissShard(blobs(num_vectors, dim, num_blobs), num_threads=1)])
    plain = descent_in_time(shards, num_clusters, {})
    goal, seconds = 1.01 * plain["inertia"][-1], plain["seconds"][-1] / 20
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "k-means++ on a sample": {"init": "kmeans++", "num_iterations": 6},
        "k-means||, oversampling 0.5": {"init": "kmeans-parallel", "oversampling": 0.5, "num_iterations": 6},
        "k-means||, oversampling 2": {"init": "kmeans-parallel", "num_iterations": 3},
    }
    for fraction in (1 / 16, 1 / 8, 1 / 4):
        few = {"sample_fraction": fraction, "num_refresh_iterations": 2}
        ways[f"sample of {fraction:g}"] = few
        ways[f"sample of {fraction:g}, k-means|| on it, oversampling 0.5"] = few | {
            "init": "kmeans-parallel", "oversampling": 0.5,
        }  # fmt: skip
    print(f"a pass: {seconds:.3g} s")
    for name, settings in ways.items():
        found = plain if name == "plain" else descent_in_time(shards, num_clusters, settings)
        reached = [i for i, inertia in enumerate(found["inertia"]) if inertia <= goal]
        row: dict[str, Any] = {"inertia of the first iterations": [each / goal * 1.01 for each in found["inertia"][:8]]}
        if reached:
            taken = found["seconds"][reached[0]] + seconds
            row |= {"iterations": reached[0], "seconds": taken, "passes": taken / seconds}
        print(name, json.dumps(row), flush=True)


def descent_in_time(shards: LocalShards, num_clusters: int, settings: dict[str, Any]) -> dict[str, list[float]]:
    """Of the centroids at the start and after each iteration over all: CPU seconds until they are there, and inertia.

    The last entry is of the result, with its assignment in place of an iteration.
    """
    start = time.process_time()
    times: list[float] = []

    def heard(*_: Any) -> None:
        times.append(time.process_time() - start)

    options = KMeansOptions(tolerance=0.0, **settings)
    (found,) = kmeans(shards, [num_clusters], options, on_iteration=heard)[0]
    # A pass takes as long as any other, so the start was there one pass before the end of the first.
    one = (times[-1] - times[0]) / (len(times) - 1)
    return {"seconds": [times[0] - one, *times], "inertia": [*found.history, found.inertia]}


def blobs(num_vectors: int, dim: int, num_blobs: int) -> np.ndarray:
    """Vectors around so many centres, float32."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(num_blobs, dim)).astype(np.float32)
    noise = rng.standard_normal((num_vectors, dim), dtype=np.float32)
    return centers[rng.integers(num_blobs, size=num_vectors)] + noise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=2_000_000)
    parser.add_argument("--clusters", type=int, default=2500)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--blobs", type=int, default=1000, help="centres around which the vectors lie")
    arguments = parser.parse_args()
    compare(arguments.vectors, arguments.clusters, arguments.dim, arguments.blobs)


if __name__ == "__main__":
    main()
