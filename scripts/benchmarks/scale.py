"""What grows with a cluster, measured on one machine: time per trial, memory of the driver, bytes and time of k-means.

    python scripts/benchmarks/scale.py --trials 10 100 1000 --shards 1 2 4 8 16

Trials train one epoch on 64 images, which takes 20 ms, so that what is seen is what a trial costs. k-means clusters
100,000 x 64 vectors into 500 clusters, once for each number of shards; the bytes are those that a shard exchanges in an
iteration. Prints JSON; docs/scale.md says what it means.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from sweep import tiny_config


def measure_trials(count: int) -> dict[str, float]:
    """Seconds per trial beyond start-up, peak memory of the driver, and size of the store."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sweep.yaml").write_text(yaml.safe_dump(tiny_config(count)))
        arguments = ("sweep", str(folder / "sweep.yaml"), "-o", str(folder / "out"), "--json")
        command = [sys.executable, "-m", "clray", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        peak = [0.0]
        threading.Thread(target=follow, args=(process, peak), daemon=True).start()
        out, _ = process.communicate()
        timing = json.loads(out)["timing"]
        return {
            "trials": count,
            "seconds_per_trial": timing["trials_seconds"] / count,
            "driver_mib": peak[0],
            "store_mib": (folder / "out" / "mlflow.db").stat().st_size / 2**20,
        }


def follow(process: subprocess.Popen, peak: list[float]) -> None:
    while process.poll() is None:
        try:
            peak[0] = max(peak[0], psutil.Process(process.pid).memory_info().rss / 2**20)
        except psutil.Error:
            return
        time.sleep(0.2)


def measure_shards(counts: list[int]) -> list[dict[str, Any]]:
    """Time and bytes of one iteration over the same vectors in more and more shards."""
    import ray

    from clray.config.sections import KMeansConfig
    from clray.kmeans.shards.actors import start_shard_actors
    from clray.kmeans.shards.ray_shards import RayShards
    from clray.ray_runtime.cluster import start_ray

    start_ray(needed_cpus=2)
    vectors = np.random.default_rng(0).normal(size=(100_000, 64)).astype(np.float32)
    centroids = [vectors[:500].copy()]
    found = []
    for count in counts:
        actors = start_shard_actors(KMeansConfig(num_shards=count, cpus_per_shard=0.1))
        parts = np.array_split(vectors, count)
        shards = RayShards(actors, [ray.put(part) for part in parts], [len(part) for part in parts])
        shards.accumulate(centroids)
        seconds = []
        for _ in range(5):
            start = time.perf_counter()
            shards.accumulate(centroids)
            seconds.append(time.perf_counter() - start)
        found.append(
            {
                "shards": count,
                "iteration_seconds": sorted(seconds)[2],
                "received_bytes_per_shard": shards.received_bytes,
                "sent_bytes_per_shard": shards.sent_bytes,
                "model_bytes": centroids[0].nbytes,
            }
        )
        for actor in actors:
            ray.kill(actor)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="*", default=[10, 100, 1000])
    parser.add_argument("--shards", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    arguments = parser.parse_args()
    trials = [measure_trials(count) for count in arguments.trials]
    print(json.dumps({"trials": trials, "shards": measure_shards(arguments.shards)}, indent=2))


if __name__ == "__main__":
    main()
