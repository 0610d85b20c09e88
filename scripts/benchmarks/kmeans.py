"""k-means beside faiss.Kmeans and scikit-learn, side by side in one run.

    python scripts/benchmarks/kmeans.py large small refresh one-pass memory scaling --data CIFAR10_FOLDER

Times are medians over alternating pairs, with all cores to each side; quote the ratios. The Ray actors are started
before, as they are while a run trains; what starting them costs is shown apart. Both sides end with the assignment of
every vector to the final centroids, which faiss.Kmeans.train leaves to its user: one more search.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil
import ray

from clray.config import parse_config
from clray.config.sections import KMeansConfig
from clray.data.load import load_dataset
from clray.kmeans.lloyd import Clustering, lloyd
from clray.kmeans.options import KMeansOptions
from clray.kmeans.shards.actors import start_shard_actors
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.ray_shards import RayShards
from clray.kmeans.shards.together import LocalShards
from clray.kmeans.vectors.source import open_vectors, split_rows
from clray.ray_runtime.cluster import start_ray
from clray.training.trainer import run
from clray.training.workers.gpus import default_device
from clray.training.workers.process import LocalSession

NUM_CORES = os.cpu_count() or 1
Timed = Callable[[], tuple[float, Any]]


def unit_vectors(num_vectors: int, dim: int = 128) -> np.ndarray:
    """Directions drawn evenly from the sphere, float32."""
    vectors = np.random.default_rng(0).normal(size=(num_vectors, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def alternate(ours: Callable[[], Any], theirs: Callable[[], Any], num_pairs: int) -> dict[str, Any]:
    """Medians of both, of the ratio of each pair, and the last results."""
    pairs, results = [], ()
    for pair in range(num_pairs):
        first, second = (ours, theirs) if pair % 2 == 0 else (theirs, ours)
        one, other = timed(first), timed(second)
        mine, yours = (one, other) if pair % 2 == 0 else (other, one)
        pairs.append((mine[0], yours[0]))
        results = (mine[1], yours[1])
    return {
        "ours_seconds": statistics.median(mine for mine, _ in pairs),
        "theirs_seconds": statistics.median(yours for _, yours in pairs),
        "ratio": statistics.median(mine / yours for mine, yours in pairs),
        "ratios": [round(mine / yours, 3) for mine, yours in pairs],
        "results": results,
    }


def ray_kmeans(actors: list[Any], vectors: np.ndarray, options: KMeansOptions, initial: list[np.ndarray]) -> list:
    """The vectors on their way into the object store included."""
    bounds = split_rows(len(vectors), len(actors))
    shards = RayShards(actors, [ray.put(vectors[a:b]) for a, b in bounds], [b - a for a, b in bounds])
    return lloyd(shards, [len(each) for each in initial], options, initial=initial)


def faiss_kmeans(vectors: np.ndarray, initial: np.ndarray, num_iterations: int) -> tuple[float, float]:
    """(inertia, seconds of the last search) of every point under the final centroids."""
    kmeans = faiss.Kmeans(
        vectors.shape[1],
        len(initial),
        niter=num_iterations,
        max_points_per_centroid=len(vectors),
        min_points_per_centroid=1,
    )
    kmeans.train(vectors, init_centroids=initial)
    seconds, (distances, _) = timed(lambda: kmeans.index.search(vectors, 1))
    return float(distances.sum(dtype=np.float64)), seconds


def compare_with_faiss(actors: list[Any], num_vectors: int, num_clusters: list[int], num_pairs: int) -> dict[str, Any]:
    vectors = unit_vectors(num_vectors)
    initial = [vectors[:k].copy() for k in num_clusters]
    options = KMeansOptions(num_iterations=20, tolerance=0.0)
    found = alternate(
        lambda: ray_kmeans(actors, vectors, options, initial),
        lambda: [faiss_kmeans(vectors, each, 20) for each in initial],
        num_pairs,
    )
    ours, theirs = found.pop("results")
    assert all(each.num_iterations == 20 for each in ours), "both sides run 20 iterations"
    searches = sum(seconds for _, seconds in theirs)
    return found | {
        "ratio_without_their_last_search": found["ours_seconds"] / (found["theirs_seconds"] - searches),
        "inertia_ratio": [mine.inertia / yours for mine, (yours, _) in zip(ours, theirs, strict=True)],
    }


def refresh(actors: list[Any], data: Path, num_pairs: int) -> dict[str, Any]:
    """A warm start against the authors' protocol, on embeddings of two consecutive epochs of a CIFAR-10 run."""
    before, after = cifar10_embeddings(data)
    np.savez(Path(tempfile.gettempdir()) / "cifar10_embeddings.npz", before=before, after=after)
    rows = {}
    for k in (100, 1000):
        (previous,) = ray_kmeans(
            actors, before, KMeansOptions(), [before[np.random.default_rng(1).choice(len(before), k, replace=False)]]
        )

        def authors(k: int = k) -> tuple[float, float]:
            kmeans = faiss.Kmeans(after.shape[1], k, niter=20, nredo=5, max_points_per_centroid=1000, seed=1)
            kmeans.train(after)
            _, (distances, ids) = timed(lambda: kmeans.index.search(after, 1))
            return float(distances.sum(dtype=np.float64)), ids[:, 0]

        for num_iterations in (5, 10):
            options = KMeansOptions(num_iterations=num_iterations)

            def warm(options: KMeansOptions = options, previous: Clustering = previous) -> Clustering:
                return ray_kmeans(actors, after, options, [previous.centroids])[0]

            found = alternate(warm, authors, num_pairs)
            ours, (inertia, _) = found.pop("results")
            rows[f"K={k}, {num_iterations} iterations"] = found | {
                "iterations_done": ours.num_iterations,
                "inertia_ratio": ours.inertia / inertia,
                "moved_fraction": float(np.mean(ours.ids != previous.ids)),
            }
    return rows


def cifar10_embeddings(data: Path) -> tuple[np.ndarray, np.ndarray]:
    """z of the 50,000 training images after epochs 4 and 5 of Cl-InfoNCE with k-means clusters and the small CNN."""
    seen: list[np.ndarray] = []

    class Kept:
        """A clustering that is there at once, of vectors that are kept."""

        def __init__(
            self, vectors: np.ndarray, num_clusters: tuple[int, ...], *, nested: bool, seed: int,
            initial: list[np.ndarray] | None,
        ) -> None:  # fmt: skip
            assert not nested, "one granularity is asked for"
            seen.append(vectors)
            options = KMeansOptions(num_iterations=10, seed=seed)
            self.clusterings = lloyd(LocalShards([FaissShard(vectors)]), num_clusters, options, initial=initial)

        def ready(self) -> bool:
            return True

        def result(self) -> list[Clustering]:
            return self.clusterings

    config = parse_config(
        {
            "data": {
                "name": "parquet",
                "train_path": str(data / "train.parquet"),
                "test_path": str(data / "test.parquet"),
            },
            "augmentation": {"name": "simclr"},
            "clusters": {"num_clusters": 1000},
            "recluster": {"warmup_epochs": 3, "embeddings": "pass"},
            "encoder": {"width": 16},
            "train": {
                "num_epochs": 6,
                "cpus_per_worker": NUM_CORES,
                "global_batch_size": 256,
                "learning_rate": 1e-3,
                "optimizer": "adamw",
            },
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        session = LocalSession(Path(folder), Kept, lambda metrics: print(metrics, flush=True), default_device())
        run(config, load_dataset(config.data), session)
    return seen[-2], seen[-1]


def memory(num_vectors: int) -> dict[str, Any]:
    """2 GB of vectors through shards of at most 300 MB, and through MiniBatchKMeans.partial_fit."""
    k, passes = 256, 15
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        write_large(path, num_vectors)
        actors = start_shard_actors(KMeansConfig(num_shards=2, cpus_per_shard=1), memory_bytes=300 * 10**6)
        pids = ray.get([actor.__ray_call__.remote(lambda _: os.getpid()) for actor in actors])
        idle = [own_memory(psutil.Process(pid)) for pid in pids]
        opened = open_vectors(path)
        parts = opened.split(2)
        shards = RayShards(actors, parts, [len(part) for part in parts])
        initial = shards.take(np.arange(k) * (num_vectors // k))
        with Peaks(pids) as peaks:
            options = KMeansOptions(num_iterations=passes, tolerance=0.0)
            seconds, (ours,) = timed(partial(lloyd, shards, [k], options, initial=[initial]))
        del shards, actors
        np.save(Path(folder) / "initial.npy", initial)
        script = Path(__file__).with_name("partial_fit.py")
        child = subprocess.Popen([sys.executable, str(script), folder, str(passes)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        their_idle = int(child.stdout.readline())
        with Peaks([child.pid]) as their_peaks:
            theirs = json.loads(child.stdout.readline())
            child.wait()
    return {
        "gigabytes": num_vectors * 128 * 4 / 1e9,
        "ours_peak_megabytes_per_shard": [round(each / 1e6) for each in peaks.own],
        "ours_peak_resident_megabytes_per_shard": [round(each / 1e6) for each in peaks.resident],
        "ours_idle_megabytes_per_shard": [round(each / 1e6) for each in idle],
        "theirs_peak_megabytes": round(their_peaks.own[0] / 1e6),
        "theirs_peak_resident_megabytes": round(their_peaks.resident[0] / 1e6),
        "theirs_idle_megabytes": round(their_idle / 1e6),
        "ours_seconds": seconds,
        "theirs_seconds": theirs["seconds"],
        "inertia_ratio": ours.inertia / theirs["inertia"],
    }


def write_large(path: Path, num_vectors: int) -> None:
    """Vectors around 1,000 centres, written in blocks."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(1000, 128)).astype(np.float32)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (num_vectors, 128))
    for start in range(0, num_vectors, 100_000):
        count = min(100_000, num_vectors - start)
        noise = rng.standard_normal((count, 128), dtype=np.float32)
        out[start : start + count] = centers[rng.integers(1000, size=count)] + noise
    out.flush()


class Peaks:
    """The highest memory of some processes while a block runs, sampled every 10 ms."""

    def __init__(self, pids: list[int]) -> None:
        self.processes = [psutil.Process(pid) for pid in pids]
        self.own = [0] * len(pids)
        self.resident = [0] * len(pids)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            for i, process in enumerate(self.processes):
                try:
                    self.own[i] = max(self.own[i], own_memory(process))
                    self.resident[i] = max(self.resident[i], process.memory_info().rss)
                except (psutil.Error, FileNotFoundError, ProcessLookupError):
                    return

    def __enter__(self) -> "Peaks":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def own_memory(process: psutil.Process) -> int:
    """Anonymous memory: without libraries and the object store, which processes share."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    lines = [line for line in status.splitlines() if line.startswith("RssAnon")]
    return int(lines[0].split()[1]) * 1024 if lines else 0


def scaling(num_pairs: int, picture: Path | None) -> dict[str, Any]:
    """Seconds per iteration over the number of vectors, and over the number of shards."""
    k, options = 1000, KMeansOptions(num_iterations=5, tolerance=0.0)
    sizes, counts = (50_000, 100_000, 200_000, 400_000), (1, 2, 4)
    vectors = unit_vectors(max(sizes))
    rows: dict[str, Any] = {}
    for num_shards in counts:
        actors = start_shard_actors(KMeansConfig(num_shards=num_shards, cpus_per_shard=NUM_CORES / num_shards / 2))
        for size in sizes:
            initial = [vectors[:k].copy()]
            ray_kmeans(actors, vectors[:size], KMeansOptions(num_iterations=1), initial)
            work = partial(ray_kmeans, actors, vectors[:size], options, initial)
            rows[f"{num_shards} shards, {size}"] = statistics.median(timed(work)[0] / 6 for _ in range(num_pairs))
        del actors
    for num_shards in counts:
        seconds = np.array([rows[f"{num_shards} shards, {size}"] for size in sizes])
        slope, offset = np.polyfit(sizes, seconds, 1)
        residual = float(np.abs(np.polyval([slope, offset], sizes) / seconds - 1).max())
        rows[f"{num_shards} shards"] = {
            "microseconds_per_vector": slope * 1e6,
            "offset_seconds": offset,
            "largest_departure_from_the_line": residual,
        }
    if picture is not None:
        draw_scaling(rows, sizes, counts, picture)
    return rows


def draw_scaling(rows: dict[str, Any], sizes: tuple[int, ...], counts: tuple[int, ...], picture: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5), layout="constrained")
    for num_shards in counts:
        axes.plot(sizes, [rows[f"{num_shards} shards, {size}"] for size in sizes], "o-", label=f"{num_shards} shards")
    axes.set(xlabel="vectors (128 dimensions, K = 1,000)", ylabel="seconds per iteration", xlim=0, ylim=0)
    axes.set_title(f"One iteration over N, on {NUM_CORES} cores")
    axes.legend()
    figure.savefig(picture, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="+")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder of CIFAR-10 as Parquet, for `refresh`")
    parser.add_argument("--picture", type=Path, help="where `scaling` draws its plot")
    arguments = parser.parse_args()
    start_ray(needed_cpus=4)
    faiss.omp_set_num_threads(NUM_CORES)
    start_seconds, actors = timed(lambda: start_two(NUM_CORES))
    rows: dict[str, Callable[[], Any]] = {
        "large": lambda: compare_with_faiss(actors, 200_000, [2500], arguments.pairs),
        "small": lambda: compare_with_faiss(actors, 50_000, [1000], arguments.pairs),
        "one-pass": lambda: compare_with_faiss(actors, 200_000, [50, 500, 5000], arguments.pairs),
        "refresh": lambda: refresh(actors, arguments.data, arguments.pairs),
        "memory": lambda: memory(4_000_000),
        "scaling": lambda: scaling(arguments.pairs, arguments.picture),
    }
    print(f"starting two shard actors: {start_seconds:.2f} s")
    for name in arguments.rows:
        print(name, json.dumps(rows[name](), indent=2), flush=True)


def start_two(num_cores: int) -> list[Any]:
    """Two actors that share the cores, ready to search."""
    actors = start_shard_actors(KMeansConfig(num_shards=2, cpus_per_shard=max(1, num_cores // 2)))
    ray.get([actor.__ray_ready__.remote() for actor in actors])
    return actors


if __name__ == "__main__":
    main()
