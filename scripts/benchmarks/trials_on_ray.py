"""What trials that do next to nothing cost, on a real Ray with a real store, beside Ray Tune's with an empty function.

    python scripts/benchmarks/trials_on_ray.py 50
    python scripts/benchmarks/trials_on_ray.py 1000 --kill-at 0.5

`sweep` is the product's, as a user starts it, over trials of one epoch on 32 images: the least that trains, evaluates,
and leaves a checkpoint and a run in MLflow. `floor` is Tune alone, with as many calls of a function that reports a
number. Each has a process of its own, and the CPU seconds of all its processes are taken from outside: in all, and for
a trial once the first tenth is over, when every process has started. With `--kill-at` the sweep's driver is killed by
SIGKILL once this part of its trials is over, and the sweep is resumed. Prints JSON.
"""

import argparse
import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil

NAME, NUM_AT_ONCE = "many", 2
COUNT_FILE = "count.txt"
SAMPLE_SECONDS = 0.5
"""And more with many trials, whose folders are counted each time."""


def config_of(num_trials: int) -> dict[str, Any]:
    """Trials that differ in their temperature, with clusters that need no k-means."""
    temperatures = [round(0.05 + number / 1e5, 5) for number in range(num_trials)]
    return {
        "data": {"name": "digits", "max_train_images": 32, "max_test_images": 16, "validation_fraction": 0},
        "augmentation": {"name": "digits"},
        "clusters": {"source": "labels"},
        "encoder": {"name": "small_cnn", "width": 4},
        "head": {"hidden_dim": 16, "embedding_dim": 8},
        "train": {"num_epochs": 1, "global_batch_size": 32, "cpus_per_worker": 0.9, "precision": "float32"},
        "evaluate": {"num_neighbors": 5},
        "tracking": {"pictures": "none", "models": "none", "pages": "none"},
        "sweep": {"max_concurrent_trials": NUM_AT_ONCE},
        "search_space": {"objective.temperature": {"grid_search": temperatures}},
    }


def run_sweep(num_trials: int, place: Path, *, resume: bool) -> None:
    import clray

    result = clray.sweep({**config_of(num_trials), "output": str(place)}, name=NAME, resume=resume)
    assert Counter(record.state for record in result.records) == {"finished": num_trials}


def run_floor(num_trials: int, place: Path) -> None:
    """Ray started, processes used again, and nothing logged by Tune itself, as in a sweep."""
    from ray import tune

    from clray.ray_runtime.cluster import start_ray

    class Counting(tune.Callback):
        def on_trial_complete(self, *_: Any, **__: Any) -> None:
            with (place / COUNT_FILE).open("a") as file:
                file.write(".")

    def report(parameters: dict[str, Any]) -> None:
        tune.report({"epoch": 1, "value": parameters["point"]})

    start_ray()
    os.environ.update(TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1", RAY_AIR_NEW_OUTPUT="0")
    tune.Tuner(
        tune.with_resources(report, {"CPU": 0.9}),
        param_space={"point": tune.grid_search(list(range(num_trials)))},
        tune_config=tune.TuneConfig(max_concurrent_trials=NUM_AT_ONCE, reuse_actors=True),
        run_config=tune.RunConfig(name="tune", storage_path=str(place), verbose=0, callbacks=[Counting()]),
    ).fit()


class Processes:
    """A process and all below it: CPU seconds by what they are, and the memory of the first."""

    def __init__(self, pid: int) -> None:
        self.root = psutil.Process(pid)
        self.seen: dict[tuple[int, float], tuple[str, float, float]] = {}

    def sample(self) -> None:
        """Look at them; what has ended keeps what it had when it was last seen."""
        try:
            for each in (self.root, *self.root.children(recursive=True)):
                self._look_at(each)
        except psutil.Error:
            return

    def _look_at(self, process: psutil.Process) -> None:
        try:
            times, memory, key = process.cpu_times(), process.memory_info().rss, (process.pid, process.create_time())
            self.seen[key] = (self._kind(process), times.user + times.system, memory / 2**20)
        except psutil.Error:
            return

    def _kind(self, process: psutil.Process) -> str:
        if process == self.root:
            return "driver"
        command = " ".join(process.cmdline())
        return "trials" if "ray::ImplicitFunc" in command else "rest of Ray"

    def seconds(self) -> Counter[str]:
        found = Counter[str]()
        for kind, seconds, _ in self.seen.values():
            found[kind] += seconds
        return found

    def most_mib(self, kind: str) -> int:
        return round(max((memory for each, _, memory in self.seen.values() if each == kind), default=0))

    def count(self, kind: str) -> int:
        return sum(each == kind for each, _, _ in self.seen.values())


def follow(
    child: "subprocess.Popen[bytes]", num_trials: int, num_over: Callable[[], int], until: int
) -> dict[str, Any]:
    """Watch a process until it ends, or so many trials are over."""
    processes, began = Processes(child.pid), time.monotonic()
    marks: list[tuple[int, float, Counter[str]]] = []
    memory: dict[str, list[int]] = {"driver": [], "trials": []}
    first, started = num_over(), None
    while child.poll() is None and (over := num_over()) < until:
        processes.sample()
        if started is None and over > first:
            started = round(time.monotonic() - began, 1)
        tenth = (over - first) * 10 // max(1, num_trials - first)
        if tenth > len(memory["driver"]) - 1:
            for kind, told in memory.items():
                told.extend([processes.most_mib(kind)] * (tenth + 1 - len(told)))
        if over > first + (num_trials - first) // 10 and over < num_trials:
            marks.append((over, time.monotonic(), processes.seconds()))
        time.sleep(max(SAMPLE_SECONDS, num_trials / 5000))
    found = {
        "wall_seconds": round(time.monotonic() - began, 1),
        "seconds_to_the_first": started,
        "cpu_seconds": rounded(processes.seconds()),
        "trial_processes": processes.count("trials"),
        "mib_at_each_tenth": memory,
    }
    if len(marks) > 1:
        (start, then, before), (end, now, after) = marks[0], marks[-1]
        each = Counter({kind: (after[kind] - before[kind]) / max(1, end - start) for kind in after})
        found["a_trial"] = {"wall_seconds": round((now - then) / max(1, end - start), 3), "cpu_seconds": rounded(each)}
    return found


def rounded(seconds: Counter[str]) -> dict[str, float]:
    return {"all": round(seconds.total(), 3), **{kind: round(value, 3) for kind, value in sorted(seconds.items())}}


def on_disk(place: Path) -> int:
    return sum(1 for _ in (place / NAME / "trials").glob("*/outcome.json"))


def kept_back(place: Path) -> int:
    """Entries that the store has not been given yet."""
    with (place / NAME / "mlflow.outbox.jsonl").open("rb") as file:
        return sum(1 for _ in file) - int((place / NAME / "mlflow.sent").read_text())


def in_store(place: Path) -> dict[str, int]:
    """Runs of trials in MLflow by status; the same one twice is told."""
    trials = "select run_uuid from tags where key = 'clray.kind' and value = 'trial'"
    ids = f"select run_uuid, value from tags where key = 'clray.id' and run_uuid in ({trials})"
    with closing(sqlite3.connect(place / "mlflow.db")) as store:
        found = store.execute(f"select status, value from runs join ({ids}) using (run_uuid)").fetchall()
    return {**Counter(status for status, _ in found), "doubled": len(found) - len({name for _, name in found})}


def start(num_trials: int, part: str, place: Path) -> "subprocess.Popen[bytes]":
    place.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen([sys.executable, __file__, str(num_trials), "--child", part, "--place", str(place)])


def measure_floor(num_trials: int, place: Path) -> dict[str, Any]:
    count = place / COUNT_FILE
    child = start(num_trials, "floor", place)
    found = follow(child, num_trials, lambda: count.stat().st_size if count.exists() else 0, num_trials + 1)
    assert child.returncode == 0
    return found


def measure_sweep(num_trials: int, place: Path, kill_at: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    child = start(num_trials, "sweep", place)
    if kill_at is not None:
        found["until_killed"] = follow(child, num_trials, lambda: on_disk(place), round(kill_at * num_trials))
        child.send_signal(signal.SIGKILL)
        child.wait()
        found["over_when_killed"] = on_disk(place)
        child = start(num_trials, "resume", place)
    found["to_the_end"] = follow(child, num_trials, lambda: on_disk(place), num_trials)
    assert child.poll() in (None, 0)
    found["entries_kept_back_at_the_end"], ended = kept_back(place), time.monotonic()
    assert child.wait() == 0
    found["end_seconds"] = round(time.monotonic() - ended, 1)
    found |= {"on_disk": on_disk(place), "in_store": in_store(place)}
    found["store_mib"] = round((place / "mlflow.db").stat().st_size / 2**20, 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trials", type=int)
    parser.add_argument("--kill-at", type=float, help="Kill the driver once this part of the trials is over.")
    parser.add_argument("--parts", nargs="+", default=["floor", "sweep"], choices=("floor", "sweep"))
    parser.add_argument("--place", type=Path, help="Where the sweep is kept; by default a temporary folder.")
    parser.add_argument("--child", choices=("floor", "sweep", "resume"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child == "floor":
        run_floor(given.trials, given.place)
    elif given.child:
        run_sweep(given.trials, given.place, resume=given.child == "resume")
    else:
        with tempfile.TemporaryDirectory() as name:
            place = (given.place or Path(name)).resolve()
            if "floor" in given.parts:
                print(json.dumps({"floor": measure_floor(given.trials, place)}, indent=2), flush=True)
            if "sweep" in given.parts:
                print(json.dumps({"sweep": measure_sweep(given.trials, place, given.kill_at)}, indent=2))


if __name__ == "__main__":
    main()
