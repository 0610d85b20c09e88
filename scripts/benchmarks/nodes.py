"""A day of a Ray cluster of 64 nodes on this machine: where things are put, and a run that loses a node each minute.

    python scripts/benchmarks/nodes.py
    python scripts/benchmarks/nodes.py --nodes 8 --losses 2 --epochs 60    # a few minutes

A quarter of the nodes have two CPUs and the label that k-means shards ask for, the others one CPU. The commands of
clray run on them: `clray cluster`, a run of four workers without and with losses, and a sweep of groups that loses a
node too. Prints JSON: on how many nodes shards, workers and trials were, whether as many groups fit as were promised,
the seconds from each loss to the next new epoch, whether each epoch is there once, with the figures of the run without
losses, and what of Ray is left after each command. Needs 4 GiB of free memory besides 60 MiB a node.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import ray
import yaml
from ray.util.placement_group import placement_group, placement_group_table, remove_placement_group
from raylets import QUIET, Raylets, raylets, where_actors_are

from clray.config.sections import KMeansConfig
from clray.kmeans.shards.actors import shard_group, start_shard_actors
from clray.ray_runtime.cluster import room
from clray.ray_runtime.room import Bundle, Group
from clray.training.metrics import METRICS_FILE, read_metrics

SHARDS_LABELS = {"pool": "shards"}
NUM_SHARDS, NUM_WORKERS = 4, 4
WORKER, SHARD, SERVICE, TRIAL = "RayTrainWorker", "ShardActor", "KMeansService", "ImplicitFunc"
VICTIMS = (WORKER, SHARD, WORKER, SERVICE)
FIGURES = ("train/loss", "recluster/inertia", "eval/linear_accuracy")
SETTLED_SECONDS = 30.0
LOOK_SECONDS = 0.2
RUN: dict[str, Any] = {
    "data": {"name": "digits", "max_train_images": 800, "max_test_images": 200},
    "augmentation": {"name": "digits"},
    "clusters": {"source": "kmeans", "num_clusters": 20},
    "kmeans": {"num_shards": NUM_SHARDS, "cpus_per_shard": 1, "node_labels": SHARDS_LABELS},
    "encoder": {"width": 8},
    "train": {
        "num_workers": NUM_WORKERS, "cpus_per_worker": 1, "global_batch_size": 64, "precision": "float32",
        "max_failures": 30,
    },
    "tracking": {"pictures": "none", "models": "none", "pages": "none"},
}  # fmt: skip
SWEEP: dict[str, Any] = {
    **RUN,
    "train": {**RUN["train"], "num_workers": 2, "num_epochs": 20},
    "sweep": {"max_failures": 3, "max_concurrent_trials": 2},
    "search_space": {"objective.temperature": {"grid_search": [0.1, 0.2, 0.3, 0.5]}},
}


class Watch:
    """Follows a command from outside: on which nodes its actors are, and when it ends an epoch."""

    def __init__(self, folder: Path) -> None:
        self.metrics, self.over = folder / METRICS_FILE, threading.Event()
        self.nodes: dict[str, set[str]] = {}
        self.at_once: dict[str, int] = {}
        """The most nodes that actors of each class were on at the same time."""
        self.epochs: list[tuple[float, int]] = []
        self.thread = threading.Thread(target=self._follow, daemon=True)

    def _follow(self) -> None:
        looked = 0.0
        while not self.over.wait(LOOK_SECONDS):
            epoch = self.epoch
            if epoch != (self.epochs[-1][1] if self.epochs else 0):
                self.epochs.append((time.monotonic(), epoch))
            if time.monotonic() - looked > 1:
                looked = time.monotonic()
                for name, nodes in where_actors_are().items():
                    self.nodes.setdefault(name, set()).update(nodes)
                    self.at_once[name] = max(self.at_once.get(name, 0), len(nodes))

    @property
    def epoch(self) -> int:
        """The last in the run's file."""
        try:
            written = read_metrics(self.metrics.parent)
        except (OSError, ValueError):
            return 0
        return int(written[-1]["epoch"]) if written else 0

    def seconds_until_new(self, start: float, end: float) -> float | None:
        """From `start` to the first epoch after the longest pause: the one in which the loss was felt.

        None where that pause lasts until `end`, when the next loss came.
        """
        times = [start, *(when for when, _ in self.epochs if start < when < end), end]
        _, after = max((after - before, after) for before, after in pairwise(times))
        return round(after - start, 1) if after < end else None


class Day:
    """The commands of a day, one after the other, on one cluster."""

    def __init__(self, cluster: Raylets, folder: Path, seed: int) -> None:
        self.cluster, self.folder, self.random = cluster, folder, random.Random(seed)
        self.labelled = {each["NodeID"] for each in ray.nodes() if each["Labels"].get("pool") == SHARDS_LABELS["pool"]}
        self.pool = set(self.labelled)
        """Those with the shards' label that are not lost."""
        self.environment = {**os.environ, **QUIET, "RAY_ADDRESS": cluster.address, "COLUMNS": "200"}

    @contextmanager
    def command(self, folder: Path, *words: object) -> Iterator[tuple[subprocess.Popen, Watch]]:
        """A command of clray, and what is seen of it; it must end well."""
        watch, log = Watch(folder), self.log(folder)
        watch.thread.start()
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "clray", *map(str, words)],
                env=self.environment, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
            try:
                yield process, watch
                if process.wait():
                    raise RuntimeError(f"clray {words[0]} ended with {process.returncode}:\n{log.read_text()[-4000:]}")
            finally:
                process.kill()
                watch.over.set()
                watch.thread.join()

    def log(self, folder: Path) -> Path:
        return self.folder / f"{folder.name}.log"

    def told(self, folder: Path) -> int:
        """Lost nodes of which the command told."""
        return sum("of the Ray cluster is lost" in line for line in self.log(folder).read_text().splitlines())

    def placed(self, watch: Watch) -> dict[str, Any]:
        """On how many nodes what was at the same time; which shards were not where they may be."""
        return {
            "nodes_at_once": {name: watch.at_once.get(name, 0) for name in (SHARD, WORKER, TRIAL)},
            "nodes_of_shards_without_the_label": len(watch.nodes.get(SHARD, set()) - self.labelled),
        }

    def left(self) -> dict[str, Any]:
        """What the cluster still holds of a command that has ended, after some seconds."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while (found := self._left()) and time.monotonic() < deadline:
            time.sleep(1)
        return found

    def _left(self) -> dict[str, Any]:
        groups = [each for each in placement_group_table().values() if each["state"] != "REMOVED"]
        found: dict[str, Any] = {name: sum(nodes.values()) for name, nodes in where_actors_are().items()}
        if groups:
            found["placement groups"] = len(groups)
        taken = ray.cluster_resources().get("CPU", 0) - ray.available_resources().get("CPU", 0)
        return {**found, "CPUs": taken} if taken > 1e-6 else found

    def cluster_vectors(self) -> dict[str, Any]:
        """`clray cluster` on as many shards as there are nodes with two CPUs, each of which takes a whole node."""
        vectors, out = self.folder / "vectors.npy", self.folder / "clusters"
        np.save(vectors, np.random.default_rng(0).normal(size=(100_000, 32)).astype(np.float32))
        num_shards = len(self.pool)
        options = ("--shards", num_shards, "--cpus-per-shard", 1, "-k", 50, "-o", out)
        with self.command(out, "cluster", vectors, *options) as (_, watch):
            pass
        return {"shards": num_shards, "nodes": watch.at_once.get(SHARD), "left": self.left()}

    def room(self) -> dict[str, Any]:
        """As many groups as were promised beside shards, placed as Ray Train places them."""
        shards = KMeansConfig(num_shards=NUM_SHARDS, cpus_per_shard=1, node_labels=SHARDS_LABELS)
        workers = Group(NUM_WORKERS, Bundle(1.0), "worker")
        promised = int(room(workers, beside=shard_group(shards), labels=SHARDS_LABELS))
        actors = start_shard_actors(shards)
        nodes = ray.get([each.node.remote() for each in actors])
        groups = [placement_group([{"CPU": 1.0}] * NUM_WORKERS, strategy="PACK") for _ in range(promised)]
        placed = sum(each.wait(SETTLED_SECONDS) for each in groups)
        for each in groups:
            remove_placement_group(each)
        for actor in actors:
            ray.kill(actor)
        is_held = len(set(nodes)) == min(NUM_SHARDS, len(self.pool)) and set(nodes) <= self.pool
        return {"promised": promised, "placed": placed, "shards_apart_with_the_label": is_held, "left": self.left()}

    def train(self, name: str, num_epochs: int, num_losses: int, every_seconds: float) -> dict[str, Any]:
        """One run, under which nodes that hold something of it are lost."""
        config, folder = self.folder / "run.yaml", self.folder / "out" / name
        config.write_text(yaml.safe_dump(RUN), encoding="utf-8")
        start, losses = time.monotonic(), []
        words = ("train", config, "-o", folder.parent, "--name", name, "--set", f"train.num_epochs={num_epochs}")
        with self.command(folder, *words) as (process, watch):
            while len(losses) < num_losses and self._wait(process, watch, losses, every_seconds):
                losses.append({"at": time.monotonic(), "at_epoch": watch.epoch} | self._lose(VICTIMS[len(losses) % 4]))
        ends = [each["at"] for each in losses[1:]] + [time.monotonic()]
        for each, end in zip(losses, ends, strict=True):
            each["seconds_until_next_epoch"] = watch.seconds_until_new(each["at"], end)
            each["at"] = round(each["at"] - start)
        epochs = [each["epoch"] for each in read_metrics(folder)]
        return {
            "seconds": round(time.monotonic() - start),
            **self.placed(watch),
            "losses": losses,
            "losses_told": self.told(folder),
            "each_epoch_once": epochs == list(range(1, num_epochs + 1)),
            "last": {name: read_metrics(folder)[-1].get(name) for name in FIGURES},
            "left": self.left(),
        }

    def _wait(self, process: subprocess.Popen, watch: Watch, losses: list[Any], seconds: float) -> bool:
        """Until the next loss is due, the first one once the second epoch has ended; False where the command ends."""
        while process.poll() is None:
            due = losses[-1]["at"] + seconds if losses else None
            if watch.epoch >= 2 if due is None else time.monotonic() >= due:
                return True
            time.sleep(LOOK_SECONDS)
        return False

    def _lose(self, wanted: str) -> dict[str, Any]:
        """Lose a node that holds such an actor, else one that holds any, else any."""
        held = where_actors_are()
        mine = set(self.cluster.by_id)
        some = sorted(set(held.get(wanted, ())) & mine)
        some = some or sorted({node for nodes in held.values() for node in nodes} & mine) or sorted(mine)
        node = self.random.choice(some)
        self.cluster.lose(node)
        self.pool.discard(node)
        return {"held": {name: nodes[node] for name, nodes in held.items() if nodes[node]}}

    def sweep(self) -> dict[str, Any]:
        """Four trials of two workers, two at a time; a node of a worker is lost, and one of a trial."""
        config, folder = self.folder / "sweep.yaml", self.folder / "out" / "sweep"
        config.write_text(yaml.safe_dump(SWEEP), encoding="utf-8")
        start, losses = time.monotonic(), []
        with self.command(folder, "sweep", config, "-o", folder.parent, "--name", "sweep") as (process, watch):
            for victim in (WORKER, TRIAL):
                while process.poll() is None and not self._is_training(victim):
                    time.sleep(1)
                if process.poll() is None:
                    time.sleep(10)
                    losses.append(self._lose(victim))
                    time.sleep(30)
        trials = [read_metrics(folder / "trials" / f"{number:04d}") for number in range(4)]
        expected = list(range(1, SWEEP["train"]["num_epochs"] + 1))
        return {
            "seconds": round(time.monotonic() - start),
            **self.placed(watch),
            "losses": losses,
            "losses_told": self.told(folder),
            "each_epoch_once": [[each["epoch"] for each in trial] == expected for trial in trials],
            "left": self.left(),
        }

    def _is_training(self, victim: str) -> bool:
        held = where_actors_are()
        return bool(held.get(WORKER)) and bool(set(held.get(victim, ())) & set(self.cluster.by_id))


def nodes_of(count: int) -> list[tuple[int, dict[str, str]]]:
    """A quarter with two CPUs for the shards, the others with one."""
    return [(2, SHARDS_LABELS) if number % 4 == 0 else (1, {"pool": "workers"}) for number in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=64)
    parser.add_argument("--losses", type=int, default=10)
    parser.add_argument("--every", type=float, default=60, help="Seconds from one loss to the next.")
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=["room", "with", "cluster", "sweep", "without"])
    asked = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, raylets(nodes_of(asked.nodes)) as cluster:
        day = Day(cluster, Path(folder), asked.seed)
        about = {"nodes": asked.nodes, "start_seconds": round(time.monotonic() - start)}
        print(json.dumps(about | {"mib_per_node": round(cluster.mib_per_node)}), flush=True)
        parts = {
            "room": day.room,
            "with": lambda: day.train("with", asked.epochs, asked.losses, asked.every),
            "room after": day.room,
            "cluster": day.cluster_vectors,
            "sweep": day.sweep,
            "without": lambda: day.train("without", asked.epochs, 0, asked.every),
        }
        for name, part in parts.items():
            if name.partition(" ")[0] in asked.only:
                print(json.dumps({name: part()}, indent=2), flush=True)


if __name__ == "__main__":
    main()
