"""What a trial costs beyond its training: clray's sweep against the documented Tune pattern, in one call.

The peer is what Ray's documentation gives for sweeping distributed training: a trial function that launches a
`TorchTrainer` and forwards its reports to Tune. Both run the same training function on the same points (one epoch on 64
images, one worker), two trials at a time, on the same Ray; only clray's also records to MLflow.

    python scripts/benchmarks/trial_overhead.py --trials 16
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.integration.ray_train import TuneReportCallback

from clray.config import Config, parse_config
from clray.data.datasets import load_dataset
from clray.ray_cluster import start_ray
from clray.sweep.search_space import draw_points
from clray.sweep.tuner import run_sweep, start_for_sweep
from clray.track.mlflow import open_store
from clray.train.launch import train_in_group

CONCURRENT = 2


class NoDisplay:
    """Shows nothing."""

    def update(self, record: Any) -> None: ...


def experiment(num_trials: int, output: Path) -> Config:
    return parse_config(
        {
            "output": str(output),
            "data": {"max_train_images": 64, "max_test_images": 64},
            "augmentation": {"name": "digits"},
            "clusters": {"source": "labels"},
            "encoder": {"width": 8},
            "train": {"num_epochs": 1, "global_batch_size": 32, "cpus_per_worker": 0.9},
            "evaluate": {"probe_epochs": 5},
            "sweep": {"max_concurrent_trials": CONCURRENT},
            "search_space": {"seed": {"grid_search": list(range(num_trials))}},
        }
    )


def sweep_with_clray(config: Config) -> list[float]:
    """Runs the sweep; returns each trial's accuracy, in the order of the points."""
    output = Path(config.output)
    data, points = load_dataset(config.data), draw_points(config)
    store = open_store(config.tracking, output)
    start_for_sweep(config, points, verbose=False)
    records, parent = run_sweep(config, points, data, output / "clray", store, NoDisplay())
    parent.finish()
    return [record.metrics["eval/linear_accuracy"] for record in records]


def sweep_with_nested_trainers(config: Config) -> list[float]:
    """The same points, each in a `TorchTrainer` of its own."""
    data, points = ray.put(load_dataset(config.data)), draw_points(config)
    folder = Path(config.output) / "nested"

    def trial(parameters: dict[str, Any]) -> None:
        point = parameters["point"]
        reports = (TuneReportCallback(),)
        train_in_group(points[point].config, data, folder / str(point), service=None, callbacks=reports)

    tuner = tune.Tuner(
        tune.with_resources(trial, {"CPU": 0.01}),
        param_space={"point": tune.grid_search(list(range(len(points))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=CONCURRENT),
        run_config=tune.RunConfig(name="tune", storage_path=str(folder), verbose=0),
    )
    results = {result.config["point"]: result.metrics for result in tuner.fit()}
    return [results[point]["eval/linear_accuracy"] for point in range(len(points))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=16)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        config = experiment(arguments.trials, Path(folder))
        start_ray(needed_cpus=CONCURRENT, dashboard=True)
        seconds, accuracies = {}, {}
        for name, sweep in (("clray", sweep_with_clray), ("nested_trainers", sweep_with_nested_trainers)):
            start = time.perf_counter()
            accuracies[name] = sweep(config)
            seconds[name] = (time.perf_counter() - start) / arguments.trials
    print(
        json.dumps(
            {
                "trials": arguments.trials,
                "seconds_per_trial": seconds,
                "ratio": seconds["nested_trainers"] / seconds["clray"],
                "same_accuracies": accuracies["clray"] == accuracies["nested_trainers"],
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
