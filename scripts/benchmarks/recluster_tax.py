"""What fresh k-means clusters add to a run: clray's bank beside the authors' protocol and a run without clusters.

    python scripts/benchmarks/recluster_tax.py CIFAR10/train.parquet CIFAR10/test.parquet

Ways to train the same encoder for the same epochs, taking turns, once per seed:

    none      instance clusters (InfoNCE): what training alone costs
    again     the same once more: how far two equal runs lie apart here
    clray     k-means every epoch over the bank of embeddings, warm-started, async
    authors   k-means every epoch over a pass of all images, 5 x 20 iterations, cold, while training waits

Wall time is that of the epochs, evaluation taken out; ratios are medians over the seeds. The Ray cluster and its
k-means shards are started once, before.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median, stdev

from machine import machine

from clray.config import Config, override, parse_config
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.ray_runtime.cluster import start_ray
from clray.training.metrics import Metrics, read_metrics
from clray.training.workers.launch import launch
from clray.training.workers.opening import start_service

WAYS = {
    "none": {"clusters.source": "instance"},
    "clray": {"recluster.embeddings": "bank", "recluster.mode": "async"},
    "again": {"clusters.source": "instance"},
    "authors": {
        "recluster.embeddings": "pass",
        "recluster.mode": "sync",
        "kmeans.warm_start": False,
        "kmeans.num_iterations": 20,
        "kmeans.num_redos": 5,
        "kmeans.tolerance": 0.0,
    },
}


def config_for(options: argparse.Namespace) -> Config:
    return parse_config(
        {
            "data": {
                "name": "parquet",
                "train_path": options.train,
                "test_path": options.test,
                "max_train_images": options.images,
                "max_test_images": min(5_000, options.images),
            },
            "clusters": {"source": "kmeans", "num_clusters": options.clusters},
            "recluster": {"warmup_epochs": 1, "every_epochs": 1},
            "kmeans": {"num_shards": 1, "cpus_per_shard": 1.0},
            "encoder": {"name": options.encoder, "width": options.width},
            "train": {
                "num_epochs": options.epochs,
                "global_batch_size": 256,
                "learning_rate": 2e-3,
                "cpus_per_worker": options.threads,
                "checkpoint_every_epochs": options.epochs,
            },
        }
    )


def run_once(config: Config, data: Dataset, service: object) -> tuple[float, list[Metrics]]:
    """Wall seconds without evaluation, and the epochs' metrics."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        launch(config, data, Path(folder), service=service, on_report=lambda _: None)
        seconds = time.perf_counter() - start
        metrics = read_metrics(Path(folder))
    return seconds - sum(each.get("eval/seconds", 0.0) for each in metrics), metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--clusters", type=int, default=1_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--threads", type=int, default=1, help="of training; more than cores less one share with k-means"
    )
    parser.add_argument("--encoder", default="small_cnn")
    parser.add_argument("--width", type=int, default=16)
    options = parser.parse_args()
    config = config_for(options)
    print(machine(), flush=True)
    data = load_dataset(config.data)
    start_ray(needed_cpus=options.threads + 1, verbose=False)
    service = start_service(config.kmeans)
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    accuracy: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(options.seeds):
        for way, overrides in WAYS.items():
            took, metrics = run_once(override(config, {**overrides, "seed": seed}), data, service)
            seconds[way].append(took)
            accuracy[way].append(metrics[-1]["eval/linear_accuracy"])
            stall = sum(each.get("recluster/stall_seconds", 0.0) for each in metrics)
            k_means = sum(each.get("recluster/seconds", 0.0) for each in metrics)
            print(
                f"seed {seed} {way:<8} {took:7.1f} s, stalled {stall:6.2f} s, k-means {k_means:6.1f} s, "
                f"linear accuracy {accuracy[way][-1]:.4f}",
                flush=True,
            )
    for way in ("clray", "authors"):
        ratio = median(own / none for own, none in zip(seconds[way], seconds["none"], strict=True))
        print(f"{way}: wall time {ratio:.3f} of the run without clusters")
    noise = [again / none for again, none in zip(seconds["again"], seconds["none"], strict=True)]
    print(f"noise: two equal runs, {', '.join(f'{each:.3f}' for each in noise)}")
    for way in ("again", "clray", "authors"):  # where the first is as large as the others, nothing was measured
        added = [own - none for own, none in zip(seconds[way], seconds["none"], strict=True)]
        print(f"{way}: {', '.join(f'{each:+.1f}' for each in added)} s added")
    for way, values in accuracy.items():
        spread = f" ± {stdev(values):.4f}" if len(values) > 1 else ""
        print(f"{way}: linear accuracy {sum(values) / len(values):.4f}{spread}")


if __name__ == "__main__":
    main()
