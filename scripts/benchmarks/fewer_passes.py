"""Samples and starts of k-means beside plain Lloyd: CPU seconds of one core to within 1 % of its inertia.

    python scripts/benchmarks/fewer_passes.py --vectors 2000000 --clusters 2500 --ways sample
    python scripts/benchmarks/fewer_passes.py --vectors 2000000 --clusters 2500 --data patches --images train.parquet

In one process, without Ray. Plain Lloyd makes 20 iterations from random vectors. The goal is its inertia on all vectors
after them, plus 1 %. The time of a way is that until its centroids reach the goal on all vectors: the start and the
sample included, and for plain Lloyd too no more iterations than it needs. Finding out the inertia is counted for none.
Who wants ids assigns the vectors once more, in each way: the times with that are given beside.
"""

import argparse
import io
import json
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from clray.kmeans.kmeans import kmeans
from clray.kmeans.options import KMeansOptions
from clray.kmeans.shards.faiss_shard import FaissShard
from clray.kmeans.shards.together import LocalShards

PLAIN = "plain"
WAYS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "k-means++ on a sample": {"init": "kmeans++", "num_iterations": 6},
    "k-means||, oversampling 0.5": {"init": "kmeans-parallel", "oversampling": 0.5, "num_iterations": 6},
    "k-means||, oversampling 2": {"init": "kmeans-parallel", "num_iterations": 3},
    **{f"sample of {each:g}": {"sample_fraction": each, "num_refresh_iterations": 2} for each in (1 / 4, 1 / 2, 3 / 4)},
    "sample of 0.75, k-means++ on it": {"sample_fraction": 3 / 4, "num_refresh_iterations": 2, "init": "kmeans++"},
}


def compare(vectors: np.ndarray, num_clusters: int, only: str) -> None:
    """Print each way whose name begins so, after plain Lloyd."""
    faiss.omp_set_num_threads(1)
    shards = LocalShards([FaissShard(vectors, num_threads=1)])
    plain = descent_in_time(shards, num_clusters, WAYS[PLAIN])
    end, seconds = plain["inertia"][-1], (plain["seconds"][-1] - plain["seconds"][0]) / 20
    print(f"a pass: {seconds:.3g} s", flush=True)
    needed = 0.0
    for name, settings in WAYS.items():
        if name != PLAIN and not name.startswith(only):
            continue
        found = plain if name == PLAIN else descent_in_time(shards, num_clusters, settings)
        inertia = [round(each / end, 4) for each in found["inertia"]]
        row: dict[str, Any] = {"inertia after each iteration over all": inertia}
        reached = [i for i, each in enumerate(inertia) if each <= 1.01]
        if reached:
            taken = found["seconds"][reached[0]]
            needed = needed or taken
            row |= {
                "iterations over all": reached[0],
                "seconds": round(taken, 2),
                "passes": round(taken / seconds, 2),
                "times less than plain": round(needed / taken, 2),
                "times less, each with an assignment": round((needed + seconds) / (taken + seconds), 2),
            }
        print(name, json.dumps(row), flush=True)


def descent_in_time(shards: LocalShards, num_clusters: int, settings: dict[str, Any]) -> dict[str, list[float]]:
    """Of the centroids at the start and after each iteration over all: CPU seconds until then, and inertia."""
    start = time.process_time()
    times: list[float] = []

    def heard(*_: Any) -> None:
        times.append(time.process_time() - start)

    options = KMeansOptions(tolerance=0.0, **settings)
    (found,) = kmeans(shards, [num_clusters], options, on_iteration=heard)[0]
    # A pass takes as long as any other, so the start was there one pass before the end of the first.
    one = (times[-1] - times[0]) / (len(times) - 1)
    return {"seconds": [times[0] - one, *times], "inertia": [*found.history, found.inertia]}


def blobs(num_vectors: int, dim: int, num_blobs: int, *, uneven: bool) -> np.ndarray:
    """Vectors around so many centres, float32; of uneven blobs size and width are log-normal."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(num_blobs, dim)).astype(np.float32)
    sizes = rng.lognormal(0, 1.5 if uneven else 0, num_blobs)
    widths = rng.lognormal(0, 0.5 if uneven else 0, num_blobs).astype(np.float32)
    which = rng.choice(num_blobs, num_vectors, p=sizes / sizes.sum())
    noise = rng.standard_normal((num_vectors, dim), dtype=np.float32)
    noise *= widths[which, None]
    noise += centers[which]
    return noise


def patches(file: Path, num_vectors: int, dim: int, side: int = 12) -> np.ndarray:
    """Random patches of images of one size, by an encoder as it starts: random filters, ReLU and a random layer.

    They have no groups but those that images have, like real embeddings.

    Args:
        file: Parquet, with a column `image` as Hugging Face writes it.
    """
    import pyarrow.parquet as pq
    from PIL import Image

    rng = np.random.default_rng(0)
    stored = pq.read_table(file, columns=["image"])["image"].to_pylist()
    images = np.stack([np.asarray(Image.open(io.BytesIO(each["bytes"]))) for each in stored])
    windows = np.lib.stride_tricks.sliding_window_view(images, (side, side), axis=(1, 2))
    means = images.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)
    filters = rng.standard_normal((3 * side**2, 512), dtype=np.float32) / (255 * side * 3**0.5)
    layer = rng.standard_normal((512, dim), dtype=np.float32) / 512**0.5
    vectors = np.empty((num_vectors, dim), np.float32)
    for start in range(0, num_vectors, 20_000):
        which = [rng.integers(each, size=min(20_000, num_vectors - start)) for each in windows.shape[:3]]
        block = windows[tuple(which)] - means[:, None, None]
        vectors[start : start + len(block)] = np.maximum(block.reshape(len(block), -1) @ filters, 0) @ layer
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=2_000_000)
    parser.add_argument("--clusters", type=int, default=2500)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--data", choices=["blobs", "uneven-blobs", "patches"], default="blobs")
    parser.add_argument("--blobs", type=int, default=1000, help="centres around which the vectors lie")
    parser.add_argument("--images", type=Path, help="Parquet of images of one size, for --data patches")
    parser.add_argument("--ways", default="", help="only those whose name begins so, beside plain Lloyd")
    arguments = parser.parse_args()
    if arguments.data == "patches":
        vectors = patches(arguments.images, arguments.vectors, arguments.dim)
    else:
        vectors = blobs(arguments.vectors, arguments.dim, arguments.blobs, uneven=arguments.data == "uneven-blobs")
    compare(vectors, arguments.clusters, arguments.ways)


if __name__ == "__main__":
    main()
