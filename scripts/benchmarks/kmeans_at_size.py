"""An iteration and an assignment of vectors on disk that fit no shard's memory, beside what the cost model says.

    python scripts/benchmarks/kmeans_at_size.py --vectors 100000000 --clusters 10000 --folder /data

Writes N x 96 uint8 (9.6 GB for 10^8) and deletes them afterwards. The shards, of at most 600 MB, are searched one after
the other, each in a process of its own with one thread, as a Ray actor would; the times are CPU seconds of all of them.
The memory is the peak of what a process held, its libraries (some 200 MB) among it.
"""

import argparse
import json
import math
import multiprocessing
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np

from clray.config.sections import KMeansConfig
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.kept import KeptShards
from clray.kmeans.vectors.source import FileSlice, open_vectors

MEMORY_BYTES = 600 * 10**6
CALIBRATION_ROWS = 32_768


@dataclass(frozen=True)
class Searched:
    """What a shard took: CPU seconds, and bytes at the peak."""

    iteration_seconds: float
    assignment_seconds: float
    peak_bytes: int


def write(path: Path, num_vectors: int, dim: int) -> None:
    """Vectors around 1,000 centres, uint8, in blocks."""
    rng = np.random.default_rng(0)
    centers = rng.uniform(40, 215, size=(1000, dim)).astype(np.float32)
    out = np.lib.format.open_memmap(path, "w+", np.uint8, (num_vectors, dim))
    for start in range(0, num_vectors, 100_000):
        count = min(100_000, num_vectors - start)
        noise = rng.standard_normal((count, dim), dtype=np.float32) * 12
        out[start : start + count] = (centers[rng.integers(1000, size=count)] + noise).clip(0, 255)
    out.flush()


def search(part: FileSlice, centroids: np.ndarray) -> Searched:
    """In a process of its own: one iteration, and the assignment."""
    kept = KeptShards(KMeansConfig(cpus_per_shard=1, backend="faiss"), "exact", MEMORY_BYTES)
    shard = kept.open("", part, [len(centroids)])
    seconds = [time.process_time()]
    for work in (shard.accumulate, shard.assign):
        work([centroids])
        seconds.append(time.process_time())
    # Not ru_maxrss, which begins at what the parent had in memory.
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return Searched(seconds[1] - seconds[0], seconds[2] - seconds[1], peak)


def rates(part: FileSlice, centroids: np.ndarray) -> tuple[float, float]:
    """Of one core here, by CPU time: operations a second of the search, bytes a second of the sums and of widening."""
    faiss.omp_set_num_threads(1)
    faiss.cvar.distance_compute_blas_query_bs = 1024
    block = next(part.blocks(CALIBRATION_ROWS))
    faiss.knn(block[:1024], centroids, 1)
    start = time.process_time()
    for first in range(0, len(block), 8192):
        faiss.knn(block[first : first + 8192], centroids, 1)
    flops = 2 * block.size * len(centroids) / (time.process_time() - start)
    shard = FaissShard(block, num_threads=1)
    shard.accumulate([centroids[:1]])
    start = time.process_time()
    shard.accumulate([centroids[:1]])
    return flops, 16 * block.size / (time.process_time() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=10**8)
    parser.add_argument("--clusters", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=96)
    parser.add_argument("--shards", type=int, help="by default one for each 2.5 * 10^7 vectors")
    parser.add_argument("--folder", type=Path, help="where the vectors are written meanwhile")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as folder:
        path = Path(folder) / "vectors.npy"
        write(path, asked.vectors, asked.dim)
        vectors = open_vectors(path)
        parts = vectors.split(asked.shards or math.ceil(asked.vectors / 25_000_000))
        whole = vectors.slice(0, len(vectors))
        centroids = FaissShard(whole).take(np.linspace(0, len(vectors) - 1, asked.clusters).astype(np.int64))
        flops, sum_bytes = rates(whole, centroids)
        found = []
        for part in parts:
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                found.append(pool.apply(search, (part, centroids)))
    work = asked.vectors * asked.dim
    searching = 2 * work * asked.clusters / flops
    reckoned = {"iteration": searching + 16 * work / sum_bytes, "assignment": searching}
    measured = {
        "iteration": sum(each.iteration_seconds for each in found),
        "assignment": sum(each.assignment_seconds for each in found),
    }
    print(
        json.dumps(
            {
                "vectors": asked.vectors, "clusters": asked.clusters, "dim": asked.dim, "shards": len(parts),
                "flops": flops, "reckoned_seconds": reckoned, "measured_seconds": measured,
                "measured_by_reckoned": {name: measured[name] / reckoned[name] for name in reckoned},
                "microseconds_a_vector": {name: 1e6 * each / asked.vectors for name, each in measured.items()},
                "peak_megabytes": [round(each.peak_bytes / 1e6) for each in found],
            },
            indent=2,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
