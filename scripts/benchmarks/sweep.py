"""What a sweep costs beside a loop over `clray train` and beside Ray Tune's documented pattern; what tracking costs.

    python scripts/benchmarks/sweep.py points TRAIN.parquet TEST.parquet   # 16 points, three ways, one after the other
    python scripts/benchmarks/sweep.py tracking                            # share of a run spent in MLflow calls
    python scripts/benchmarks/sweep.py many --trials 64                    # time per trial, memory, size of the store
    python scripts/benchmarks/sweep.py trunks                              # sweeps alone, from trunks, and prescreened

The documented pattern is a trial function that launches a `TorchTrainer` and forwards its reports to Tune. All ways
train the same points with the same code; the loop's runs have both cores to themselves, the others share them between
two trials at a time. Prints JSON.
"""

import argparse
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

POINTS = {
    "clusters.num_clusters": [10, 30, 100, 300],
    "objective.temperature": [0.1, 0.2, 0.5, 1.0],
}
ASHA = {"scheduler": "asha", "grace_epochs": 2, "reduction_factor": 3}
METRIC = "eval/linear_accuracy"


def cifar_config(train: Path, test: Path, epochs: int, images: int) -> dict[str, Any]:
    return {
        "data": {
            "name": "parquet", "train_path": str(train.resolve()), "test_path": str(test.resolve()),
            "max_train_images": images, "max_test_images": 1000,
        },
        "encoder": {"width": 16},
        "recluster": {"warmup_epochs": 1},
        "kmeans": {"num_shards": 1, "num_iterations": 10},
        "train": {
            "num_epochs": epochs, "global_batch_size": 128, "cpus_per_worker": 0.9, "checkpoint_every_epochs": epochs,
        },
        "evaluate": {"every_epochs": 1},
        "tracking": {"pictures": "none", "models": "none"},
        "search_space": {key: {"grid_search": values} for key, values in POINTS.items()},
    }  # fmt: skip


def clray(*arguments: object) -> dict[str, Any]:
    """The command's JSON."""
    command = [sys.executable, "-m", "clray", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)


def compare_points(arguments: argparse.Namespace) -> dict[str, Any]:
    """Wall time and best accuracy of the three ways."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = cifar_config(arguments.train, arguments.test, arguments.epochs, arguments.images)
        path = folder / "all.yaml"
        path.write_text(yaml.safe_dump(tree))
        asha = folder / "asha.yaml"
        asha.write_text(yaml.safe_dump(tree | {"sweep": ASHA}))
        for way, run in (
            ("clray_asha", lambda: best_of(clray("sweep", asha, "-o", folder / "asha"))),
            ("clray_dominated", lambda: best_of(clray("sweep", path, "-o", folder / "dominated", "--set",
                                                      "sweep.stop_dominated=true", "--set", "sweep.grace_epochs=2"))),
            ("clray_all", lambda: best_of(clray("sweep", path, "-o", folder / "all"))),
            ("loop", lambda: loop(path, folder / "loop")),
            ("nested_trainers", lambda: nested(path, folder / "nested")),
        ):  # fmt: skip
            if arguments.ways and way not in arguments.ways:
                continue
            start = time.perf_counter()
            outcome = run()
            found[way] = {"seconds": time.perf_counter() - start, **outcome}
            print(way, found[way], file=sys.stderr, flush=True)
    for way in found.keys() & {"loop", "nested_trainers", "clray_all"}:
        if "clray_asha" in found:
            found[f"{way} / clray_asha"] = found[way]["seconds"] / found["clray_asha"]["seconds"]
    return found


def compare_trunks(warmup_epochs: int) -> dict[str, Any]:
    """Wall time and best accuracy of the quickstart's k-means points: each alone, from trunks, and half of them."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = yaml.safe_load(Path("tune_configs/quickstart.yaml").read_text())
        tree["search_space"] = tree["search_space"][0]
        tree["recluster"]["warmup_epochs"] = warmup_epochs
        for way, settings in (
            ("alone", {"share_warmup": False}),
            ("trunks", {}),
            ("prescreen", {"prescreen": True, "prescreen_keep": 0.5}),
        ):
            path = folder / f"{way}.yaml"
            path.write_text(yaml.safe_dump(tree | {"sweep": settings}))
            start = time.perf_counter()
            results = clray("sweep", path, "-o", folder / way)
            found[way] = {"seconds": time.perf_counter() - start, **results["timing"], **best_of(results)}
            print(way, found[way], file=sys.stderr, flush=True)
    for way in ("trunks", "prescreen"):
        for key in ("seconds", "trials_seconds"):
            found[f"{way} / alone, {key}"] = found[way][key] / found["alone"][key]
    return found


def best_of(results: dict[str, Any]) -> dict[str, Any]:
    trials = results["trials"]
    return {
        "best": trials[0]["metrics"][METRIC],
        "best_trial": trials[0]["trial"],
        "epochs": sum(trial["metrics"].get("epoch", 0) for trial in trials),  # none where a prescreen left one out
    }


def loop(path: Path, output: Path) -> dict[str, Any]:
    """Each point by a command of its own, on both cores."""
    accuracies, epochs = {}, 0
    for clusters in POINTS["clusters.num_clusters"]:
        for temperature in POINTS["objective.temperature"]:
            sets = (
                f"clusters.num_clusters={clusters}",
                f"objective.temperature={temperature}",
                "train.cpus_per_worker=2",
            )
            options = [part for each in sets for part in ("--set", each)]
            metrics = clray("train", path, "-o", output, "--name", f"{clusters}-{temperature}", *options)["metrics"]
            accuracies[f"k={clusters} t={temperature}"] = metrics[METRIC]
            epochs += metrics["epoch"]
    best = max(accuracies, key=lambda name: accuracies[name])
    return {"best": accuracies[best], "best_trial": best, "epochs": epochs}


def nested(path: Path, output: Path) -> dict[str, Any]:
    """In a process of its own, as Ray is then started for it alone."""
    command = [sys.executable, __file__, "nested", str(path), str(output)]
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)  # Tune prints much
    return json.loads((output / "outcome.json").read_text())


def run_nested(path: Path, output: Path) -> dict[str, Any]:
    """The documented pattern: a `TorchTrainer` for each trial."""
    import ray
    from ray import tune

    from clray.config import load_config
    from clray.data.load import load_dataset
    from clray.ray_runtime.cluster import start_ray
    from clray.sweeps.search_space import plan_sweep
    from clray.training.workers.launch import launch
    from clray.training.workers.opening import start_service

    config = load_config(path)
    points = plan_sweep(config).points
    start_ray(needed_cpus=2, dashboard=True)
    data, service = ray.put(load_dataset(config.data)), start_service(config.kmeans)

    def trial(parameters: dict[str, Any]) -> None:
        point = parameters["point"]
        launch(
            points[point].config, ray.get(data), output / str(point),
            service=service, on_report=tune.report, reference=data,
        )  # fmt: skip

    tuner = tune.Tuner(
        tune.with_resources(trial, {"CPU": 0.01}),
        param_space={"point": tune.grid_search(list(range(len(points))))},
        tune_config=tune.TuneConfig(max_concurrent_trials=2),
        run_config=tune.RunConfig(name="tune", storage_path=str(output.resolve()), verbose=0),
    )
    results = {points[result.config["point"]].name: result.metrics or {} for result in tuner.fit()}
    best = max(results, key=lambda name: results[name].get(METRIC, 0.0))
    epochs = sum(metrics.get("epoch", 0) for metrics in results.values())
    return {"best": results[best][METRIC], "best_trial": best, "epochs": epochs}


def tiny_config(trials: int) -> dict[str, Any]:
    return {
        "data": {"max_train_images": 64, "max_test_images": 64},
        "augmentation": {"name": "digits"},
        "clusters": {"source": "labels"},
        "encoder": {"width": 8},
        "train": {"num_epochs": 1, "global_batch_size": 32, "cpus_per_worker": 0.9},
        "tracking": {"pictures": "none", "models": "none"},
        "search_space": {"seed": {"grid_search": list(range(trials))}},
    }


def measure_tracking() -> dict[str, Any]:
    """Seconds that the sweep's process spends in MLflow calls, beside all its wall time."""
    shares = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tree = yaml.safe_load(Path("tune_configs/quickstart.yaml").read_text())
        tree["search_space"] = {"objective.temperature": {"grid_search": [0.1, 0.2, 0.5, 1.0]}}
        (folder / "sweep.yaml").write_text(yaml.safe_dump(tree))
        for store in ("sqlite", "http"):
            server, uri = (None, None) if store == "sqlite" else start_server(folder)
            output = folder / store
            command = [
                sys.executable,
                __file__,
                "tracked",
                str(folder / "sweep.yaml"),
                str(output),
                *filter(None, [uri]),
            ]
            start = time.perf_counter()
            printed = "\n" + subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
            seconds = json.loads(printed[printed.rindex("\n{") :])  # Ray prints to stdout before
            shares[store] = {**seconds, "wall_seconds": time.perf_counter() - start}
            shares[store]["share"] = seconds["writing_seconds"] / shares[store]["wall_seconds"]
            if server is not None:
                server.terminate()
    return shares


def run_tracked(path: Path, output: Path, uri: str | None) -> dict[str, float]:
    """A sweep in this process, with its outbox in sight."""
    from clray.config import load_config
    from clray.data.load import load_dataset
    from clray.sweeps.search_space import plan_sweep
    from clray.sweeps.summary import conclude
    from clray.sweeps.trials import rank_records
    from clray.sweeps.tuner import run_sweep, start_for_sweep
    from clray.track.mlflow import open_store
    from clray.track.runs import Tracker

    class NoDisplay:
        def update(self, record: Any) -> None: ...

    config = load_config(path, [f"output={output}", *([] if uri is None else [f"tracking.uri={uri}"])])
    plan, data = plan_sweep(config), load_dataset(config.data)
    folder = output / "sweep"
    folder.mkdir(parents=True)
    start = time.perf_counter()
    store = open_store(config.tracking, output)
    opening = time.perf_counter() - start
    tracker = Tracker(store, folder)
    num_at_once = start_for_sweep(config, plan.samples, data, verbose=False)
    records, parent = run_sweep(config, plan, data, folder, num_at_once, tracker, NoDisplay())
    conclude(config, rank_records(records, config), data, folder, tracker, parent, {})
    parent.finish()
    start = time.perf_counter()
    tracker.close(60)
    progress = tracker.outbox.progress
    return {
        "opening_seconds": opening,
        "writing_seconds": progress.seconds_writing,
        "waiting_at_the_end_seconds": time.perf_counter() - start,
        "entries": progress.num_entries,
    }


def start_server(folder: Path) -> tuple[subprocess.Popen, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "artifacts"),
    ]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return server, f"http://127.0.0.1:{port}"
        time.sleep(0.2)


def measure_many(trials: int) -> dict[str, Any]:
    """A sweep of trials that train next to nothing."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "many.yaml").write_text(yaml.safe_dump(tiny_config(trials)))
        command = [
            sys.executable,
            "-m",
            "clray",
            "sweep",
            str(folder / "many.yaml"),
            "-o",
            str(folder / "out"),
            "--json",
        ]
        start = time.perf_counter()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        timing = json.loads(done.stdout)["timing"]
        return {
            "trials": trials,
            "wall_seconds": time.perf_counter() - start,
            "seconds_per_trial": timing["trials_seconds"] / trials,
            "largest_process_mib": largest_child_mib(),
            "store_mib": (folder / "out" / "mlflow.db").stat().st_size / 2**20,
        }


def largest_child_mib() -> float:
    """Peak resident memory of the largest child that has ended, in MiB."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_subparsers(dest="what", required=True)
    points = what.add_parser("points")
    points.add_argument("train", type=Path)
    points.add_argument("test", type=Path)
    points.add_argument("--epochs", type=int, default=9)
    points.add_argument("--images", type=int, default=2000)
    points.add_argument("--ways", nargs="*", help="Of clray_asha, clray_dominated, clray_all, loop, nested_trainers.")
    what.add_parser("tracking")
    trunks = what.add_parser("trunks")
    trunks.add_argument("--warmup-epochs", type=int, default=8)
    many = what.add_parser("many")
    many.add_argument("--trials", type=int, default=64)
    for name, names in (("nested", ("path", "output")), ("tracked", ("path", "output", "uri"))):
        inner = what.add_parser(name)  # a side of the others, in a process of its own
        for each in names:
            inner.add_argument(each, nargs="?" if each == "uri" else None)
    arguments = parser.parse_args()
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    if arguments.what == "points":
        found = compare_points(arguments)
    elif arguments.what == "tracking":
        found = measure_tracking()
    elif arguments.what == "trunks":
        found = compare_trunks(arguments.warmup_epochs)
    elif arguments.what == "many":
        found = measure_many(arguments.trials)
    elif arguments.what == "nested":
        found = run_nested(Path(arguments.path), Path(arguments.output))
        (Path(arguments.output) / "outcome.json").write_text(json.dumps(found))
    else:
        found = run_tracked(Path(arguments.path), Path(arguments.output), arguments.uri)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
