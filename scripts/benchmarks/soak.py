"""Sweeps under random kills of trials, workers, k-means shards, the service, the driver and the tracking server.

    python scripts/benchmarks/soak.py --minutes 60 --seed 0

Sweeps run one after the other against an MLflow server over HTTP, every second one with trials of two workers that
write checkpoints within an epoch. At random moments a process of theirs is ended by SIGKILL; a driver that was killed
is resumed, a tracking server that was killed comes back after some seconds. At the end every trial must have finished,
with each epoch once on disk and in MLflow. Prints JSON: the kills, what was not accounted for, what is left of Ray, and
memory, open files and processes over time.
"""

import argparse
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import mean
from typing import Any

import psutil
import yaml
from mlflow import MlflowClient

from clray.training.metrics import read_metrics

NUM_EPOCHS, NUM_TRIALS = 30, 4
OF_RAY = ("raylet", "gcs_server", "ray::")
MARK = "CLRAY_SOAK"
"""In the environment of all that a soak starts, as its process id."""
VICTIMS = {"trial": "ImplicitFunc", "worker": "TrainWorker", "shard": "ShardActor", "service": "KMeansService"}
SWEEP: dict[str, Any] = {
    "data": {"name": "digits", "max_train_images": 400, "max_test_images": 100},
    "augmentation": {"name": "digits"},
    "clusters": {"source": "kmeans"},
    "encoder": {"width": 8},
    "train": {"num_epochs": NUM_EPOCHS, "global_batch_size": 64, "cpus_per_worker": 0.5, "checkpoint_every_epochs": 1},
    "sweep": {"max_failures": 20},
    "tracking": {"pictures": "none", "models": "none", "wait_seconds": 120},
    "search_space": {
        "clusters.num_clusters": {"grid_search": [5, 20]},
        "objective.temperature": {"grid_search": [0.1, 0.5]},
    },
}


OF_GROUPS = {"num_workers": 2, "cpus_per_worker": 0.25, "checkpoint_every_steps": 2}


class TrackingServer:
    """An MLflow server that can be killed and comes back with the same store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        command = [
            sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1",
            "--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db",
            "--artifacts-destination", str(self.folder / "artifacts"),
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.2)

    def kill(self) -> None:
        for child in psutil.Process(self.process.pid).children(recursive=True):
            child.kill()
        self.process.kill()
        self.process.wait()


class Soak:
    """One run of the whole: sweeps, kills, and what was seen."""

    def __init__(self, folder: Path, seed: int, minutes: float) -> None:
        self.folder, self.random = folder, random.Random(seed)
        self.end = time.monotonic() + 60 * minutes
        self.server = TrackingServer(folder)
        self.kills: dict[str, int] = dict.fromkeys((*VICTIMS, "driver", "server"), 0)
        self.samples: list[dict[str, float]] = []
        self.driver: subprocess.Popen | None = None
        self.started = time.monotonic()

    def run(self) -> dict[str, Any]:
        of_groups = SWEEP | {"train": SWEEP["train"] | OF_GROUPS}
        for kind, tree in (("single", SWEEP), ("groups", of_groups)):
            (self.folder / f"{kind}.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
        for worker in (self._harm, self._observe):
            threading.Thread(target=worker, daemon=True).start()
        names = []
        while time.monotonic() < self.end:
            kind = ("single", "groups")[len(names) % 2]
            names.append(f"{kind}{len(names):03d}")
            self._sweep(names[-1], self.folder / f"{kind}.yaml")
        self.end = 0.0
        lost = [problem for name in names for problem in self._audit(name)]
        time.sleep(30)
        ours = (each for each in psutil.process_iter(["cmdline", "environ"]) if MARK in (each.info["environ"] or {}))
        titles = [
            " ".join(each.info["cmdline"] or []) for each in ours if each.info["environ"][MARK] == str(os.getpid())
        ]
        left = [title[:80] for title in titles if any(word in title for word in OF_RAY)]
        self.server.kill()
        return {
            "sweeps": len(names),
            "trials": NUM_TRIALS * len(names),
            "minutes": (time.monotonic() - self.started) / 60,
            "kills": self.kills,
            "not_accounted_for": lost,
            "processes_left": left,
            "every_ten_minutes": self._trend(),
            "peak_mib": max(sample["mib"] for sample in self.samples),
        }

    def _sweep(self, name: str, config: Path) -> None:
        """One sweep to its end, resumed as often as its driver is killed."""
        resume: list[str] = []
        for _ in range(20):
            command = [
                sys.executable, "-m", "clray", "sweep", str(config), "-o", str(self.folder / "out"),
                "--name", name, "--tracking-uri", self.server.uri, *resume,
            ]  # fmt: skip
            while self.server.process.poll() is not None:
                time.sleep(0.5)
            with (self.folder / "err.log").open("a") as errors:
                self.driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors,
                                               env=os.environ | {MARK: str(os.getpid())})  # fmt: skip
            if self.driver.wait() == 0:
                return
            if (self.folder / "out" / name / "config.yaml").exists():
                resume = ["--resume"]

    def _harm(self) -> None:
        """Kill something now and then."""
        while time.monotonic() < self.end:
            time.sleep(self.random.expovariate(1 / 15))
            what = self.random.choice(list(self.kills))
            if what == "server":
                self.server.kill()
                self.kills[what] += 1
                time.sleep(self.random.uniform(2, 20))
                self.server.start()
            elif what == "driver":
                if self.driver is not None and self.driver.poll() is None and self.random.random() < 0.3:
                    self.driver.send_signal(signal.SIGKILL)
                    self.kills[what] += 1
            elif (victim := self._find(VICTIMS[what])) is not None:
                victim.kill()
                self.kills[what] += 1

    def _find(self, title: str) -> psutil.Process | None:
        if self.driver is None or self.driver.poll() is not None:
            return None
        try:
            children = psutil.Process(self.driver.pid).children(recursive=True)
            found = [child for child in children if title in " ".join(child.cmdline())]
        except psutil.Error:
            return None
        return self.random.choice(found) if found else None

    def _observe(self) -> None:
        """Memory, open files and processes of everything below this process."""
        while time.monotonic() < self.end:
            sample = {"minute": (time.monotonic() - self.started) / 60, "mib": 0.0, "files": 0, "processes": 0}
            for child in psutil.Process().children(recursive=True):
                try:
                    sample["mib"] += child.memory_full_info().uss / 2**20
                    sample["files"] += child.num_fds()
                    sample["processes"] += 1
                except psutil.Error:
                    continue
            self.samples.append(sample)
            time.sleep(20)

    def _trend(self) -> list[dict[str, float]]:
        """Means of the samples over each ten minutes."""
        parts: dict[int, list[dict[str, float]]] = {}
        for sample in self.samples:
            parts.setdefault(int(sample["minute"] // 10), []).append(sample)
        return [{key: round(mean(each[key] for each in part), 1) for key in part[0]} for part in parts.values()]

    def _audit(self, name: str) -> list[str]:
        """What is missing or doubled of a sweep."""
        problems = []
        client = MlflowClient(self.server.uri)
        experiments = [each.experiment_id for each in client.search_experiments()]
        for trial in range(NUM_TRIALS):
            expected = list(range(1, NUM_EPOCHS + 1))
            on_disk = [each["epoch"] for each in read_metrics(self.folder / "out" / name / "trials" / f"{trial:04d}")]
            if on_disk != expected:
                problems.append(f"{name}/{trial}: epochs on disk {on_disk}")
            runs = client.search_runs(experiments, f"tags.`clray.id` = '{name}/{trial}'")
            if len(runs) != 1 or runs[0].info.status != "FINISHED":
                problems.append(f"{name}/{trial}: {[run.info.status for run in runs]} in MLflow")
                continue
            steps = [each.step for each in client.get_metric_history(runs[0].info.run_id, "train/loss")]
            if steps != expected:
                problems.append(f"{name}/{trial}: steps in MLflow {steps}")
        return problems


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(Soak(Path(folder), arguments.seed, arguments.minutes).run(), indent=2))


if __name__ == "__main__":
    main()
