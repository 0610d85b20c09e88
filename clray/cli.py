"""clray train | sweep | cluster | evaluate | statistics | doctor: parsing and printing only.

torch, Ray and MLflow take seconds to import, so each command imports them after its input has been checked.
"""

import json
import logging
import os
import sys
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from clray.config import Config, UserError, dump_yaml, flatten, load_config

app = typer.Typer(
    help="Contrastive representation learning with clusters (Cl-InfoNCE) on Ray, FAISS and MLflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out = Console()
err = Console(stderr=True)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The experiment; see tune_configs/.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a config key.")]
OutputRoot = Annotated[str | None, typer.Option("--output", "-o", help="Folder that holds the runs and the store.")]
Name = Annotated[str | None, typer.Option(help="The run's folder in the output folder; by default named by time.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run of this --name.")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow server; by default an SQLite store beside the runs.")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Show the resolved config and stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the messages of Ray and MLflow.")]


def main() -> None:
    """Entry point: 0 is success, 2 the user's error, 1 a failure, 130 an interruption."""
    try:
        app()
    except UserError as error:
        for line in str(error).splitlines():
            err.print(f"[red]error:[/red] {escape(line)}", soft_wrap=True, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if "-v" in sys.argv or "--verbose" in sys.argv:
            raise
        reason = str(error).strip() or type(error).__name__
        err.print(f"[red]failed:[/red] {escape(reason)}", soft_wrap=True, highlight=False)
        err.print("Run again with -v for the whole traceback.")
        sys.exit(1)


@app.command()
def train(
    path: ConfigPath,
    assignments: Assignments = None,
    output: OutputRoot = None,
    name: Name = None,
    resume: Resume = False,
    tracking_uri: TrackingUri = None,
    print_config: PrintConfig = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train one run; a search space in the file is ignored."""
    config = _resolve(path, assignments, output, tracking_uri)
    if print_config:
        sys.stdout.write(dump_yaml(config))
        return
    folder = _claim_folder(config, path, name, resume)
    data, store = _prepare(config, folder, verbose)
    from clray.train import launch
    from clray.train.run import check_against_data
    from clray.train.session import Metrics, read_metrics

    check_against_data(config, data)
    _write_config(config, folder)
    service = None
    needed = launch.required_resources(config)
    is_group = config.train.num_workers > 1
    if launch.needs_ray(config):
        if config.clusters.source == "kmeans":
            needed = {key: value + launch.shard_resources(config.kmeans)[key] for key, value in needed.items()}
        launch.start_ray(needed_cpus=needed["CPU"], dashboard=False, verbose=verbose)
        launch.require_resources(needed, "the run's workers and k-means shards")
        if config.clusters.source == "kmeans":
            service = launch.start_service(config.kmeans)
    logger = store.start_run(kind="run", run_id=folder.name, name=folder.name, config=config)
    status = "KILLED"
    try:
        with _epoch_progress(config) as show:

            def on_report(metrics: Metrics) -> None:
                logger(metrics)
                show(metrics)

            if is_group:
                _train_group_with_progress(config, data, folder, service, logger, show)
            else:
                launch.train_in_process(config, data, folder, on_report, service)
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        logger.finish(status)
        if status != "FINISHED":
            err.print(f"Go on with: clray train {path} --name {folder.name} --resume")
    metrics = read_metrics(folder)[-1]
    checkpoint = folder
    if as_json:
        _print_json({"folder": str(folder), "checkpoint": str(checkpoint), "metrics": metrics})
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for key in sorted(metrics):
        if key.startswith(("eval/", "clusters/")):
            table.add_row(key, f"{metrics[key]:.4f}")
    out.print(table)
    _print_paths(config, store.uri, {"checkpoint": checkpoint})


def _train_group_with_progress(config: Config, data: Any, folder: Path, service: Any, logger: Any, show: Any) -> None:
    import ray

    from clray.train.launch import follow_metrics, train_in_group

    stop = threading.Event()
    follower = threading.Thread(target=follow_metrics, args=(folder, show, stop), daemon=True)
    follower.start()
    try:
        # The logger goes along to Ray Train's controller, which hears of every epoch first.
        train_in_group(config, ray.put(data), folder, service=service, on_report=logger)
    finally:
        stop.set()
        follower.join(timeout=5)


@app.command()
def sweep(
    path: ConfigPath,
    assignments: Assignments = None,
    output: OutputRoot = None,
    name: Name = None,
    resume: Resume = False,
    tracking_uri: TrackingUri = None,
    print_config: PrintConfig = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run every point of the search space, and draw accuracy over I(Z;T) and H(Z|T)."""
    started = time.monotonic()
    config = _resolve(path, assignments, output, tracking_uri)
    from clray.sweep.search_space import draw_points

    points = draw_points(config)
    if print_config:
        sys.stdout.write(dump_yaml(config))
        return
    folder = _claim_folder(config, path, name, resume)
    if not as_json:
        out.print(f"[bold]{len(points)} trials[/bold], results in {folder}", highlight=False)
    with _status("preparing data, MLflow store and Ray", quiet=as_json):
        data, store = _prepare(config, folder, verbose)
        from clray.clusters.statistics import entropy_bits
        from clray.sweep.display import LiveTable, result_table
        from clray.sweep.tuner import rank_records, run_sweep, write_results
        from clray.train import launch
        from clray.train.run import check_against_data

        for point in points:
            try:
                check_against_data(point.config, data)
            except UserError as error:
                raise UserError(f"trial {point.name}: {error}") from None
        _write_config(config, folder)
        pool = launch.shard_resources(config.kmeans)["CPU"]
        needed = max(launch.required_resources(point.config)["CPU"] for point in points)
        is_group = any(point.config.train.num_workers > 1 for point in points)
        launch.start_ray(needed_cpus=needed + pool, dashboard=is_group, verbose=verbose)
    timing = {"start_up_seconds": time.monotonic() - started}
    with LiveTable(err if as_json else out, config, len(points)) as display:
        records, parent = run_sweep(config, points, data, folder, store, display)
    timing["trials_seconds"] = time.monotonic() - started - timing["start_up_seconds"]
    ranked = rank_records(records, config)
    timing["wall_seconds"] = time.monotonic() - started
    results = write_results(records, config, folder, timing)
    picture = _draw_plane(ranked, data, folder, config, entropy_bits)
    for artifact in filter(None, (picture, results)):
        parent.log_file(artifact)
    best = ranked[0] if config.sweep.metric in ranked[0].metrics else None
    if best is not None:
        parent.log_best(best.point.name, best.metrics, best.mlflow)
    stopped = [record for record in records if record.state in ("pending", "stopped")]
    parent.finish("KILLED" if stopped else "FINISHED")
    if as_json:
        _print_json(json.loads(results.read_text(encoding="utf-8")))
    else:
        out.print(result_table(ranked))
        for record in records:
            if record.error is not None:
                err.print(f"[red]failed:[/red] {record.point.name}: {escape(record.error)}", soft_wrap=True)
                err.print(f"        {record.point.overrides}", soft_wrap=True)
        _print_paths(config, store.uri, {"results": results} | ({"picture": picture} if picture else {}))
    if stopped:
        err.print(f"{len(stopped)} trials are open. Go on with: clray sweep {path} --name {folder.name} --resume")
        raise typer.Exit(130)
    if best is None:
        raise typer.Exit(1)


def _draw_plane(ranked: list[Any], data: Any, folder: Path, config: Config, entropy_bits: Any) -> Path | None:
    import numpy as np

    from clray.sweep.search_space import split_name
    from clray.track.information_plane import Point, draw_information_plane

    points = []
    for record in ranked:
        metrics = record.metrics
        if config.sweep.metric in metrics:
            label, group = split_name(record.point)
            points.append(
                Point(
                    metrics["clusters/mutual_information_bits"],
                    metrics["clusters/conditional_entropy_bits"],
                    metrics[config.sweep.metric],
                    label,
                    group,
                )
            )
    if not points:
        return None
    return draw_information_plane(
        points,
        folder / "information_plane.png",
        label_entropy_bits=entropy_bits(data.train.labels),
        instance_entropy_bits=float(np.log2(len(data.train))),
        title=f"{folder.name}: what clusters were worth",
        metric=config.sweep.metric.removeprefix("eval/").replace("_", " "),
    )


@app.command()
def cluster(
    embeddings: Annotated[Path, typer.Argument(metavar="EMBEDDINGS.npy", help="Vectors, float [N, dim].")],
    num_clusters: Annotated[int, typer.Option("--num-clusters", "-k", help="K.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder for the result.")],
    shards: Annotated[int, typer.Option(min=1, help="Ray actors that search one slice each.")] = 2,
    num_iterations: Annotated[int, typer.Option(min=1)] = 20,
    num_redos: Annotated[int, typer.Option(min=1, help="Random starts, of which the best is kept.")] = 1,
    spherical: Annotated[bool, typer.Option(help="Keep the centroids at unit length.")] = False,
    cpus_per_shard: Annotated[float, typer.Option(min=0.0)] = 1.0,
    gpus_per_shard: Annotated[float, typer.Option(min=0.0)] = 0.0,
    seed: int = 0,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Distributed FAISS k-means on its own: centroids.npy, assignments.npy and clustering.json."""
    from clray.config import KMeansConfig
    from clray.kmeans.vectors import open_npy, split_rows

    vectors = open_npy(embeddings)
    if not 1 <= num_clusters <= len(vectors):
        raise UserError(f"--num-clusters must be between 1 and {len(vectors)} (the vectors); got {num_clusters}")
    if output.exists() and any(output.iterdir()):
        raise UserError(f"--output: {output} is not empty; choose another folder")
    import numpy as np

    from clray.kmeans.actors import shards_of_file, start_shard_actors
    from clray.kmeans.lloyd import lloyd
    from clray.train.launch import require_resources, shard_resources, start_ray

    config = KMeansConfig(num_shards=shards, cpus_per_shard=cpus_per_shard, gpus_per_shard=gpus_per_shard)
    started = time.monotonic()
    with _status("starting Ray", quiet=as_json):
        start_ray(needed_cpus=0, verbose=verbose)
        require_resources(shard_resources(config), f"{shards} k-means shards")
        actors = start_shard_actors(config)
    remote = shards_of_file(actors, str(embeddings.resolve()), split_rows(len(vectors), shards))
    columns = (TextColumn("iteration"), BarColumn(), TextColumn("{task.completed}/{task.total} {task.description}"),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=err, disable=as_json) as progress:
        task = progress.add_task("", total=num_iterations * num_redos)
        clustering = lloyd(
            remote,
            num_clusters,
            num_iterations=num_iterations,
            num_redos=num_redos,
            seed=seed,
            spherical=spherical,
            on_iteration=lambda _, sums: progress.update(
                task, advance=1, description=f"inertia {sums.inertia:.6g}, {(sums.counts > 0).sum()} clusters filled"
            ),
        )
    output.mkdir(parents=True, exist_ok=True)
    np.save(output / "centroids.npy", clustering.centroids)
    np.save(output / "assignments.npy", clustering.ids)
    sizes = np.bincount(clustering.ids, minlength=num_clusters)
    summary = {
        "embeddings": str(embeddings.resolve()),
        "num_vectors": len(vectors),
        "dim": vectors.shape[1],
        "num_clusters": num_clusters,
        "num_nonempty": int((sizes > 0).sum()),
        "num_shards": shards,
        "seed": seed,
        "spherical": spherical,
        "inertia": clustering.inertia,
        "inertia_history": clustering.history,
        "smallest_cluster": int(sizes.min()),
        "largest_cluster": int(sizes.max()),
        "seconds": round(time.monotonic() - started, 3),
    }
    (output / "clustering.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    if as_json:
        _print_json(summary)
        return
    out.print(f"inertia {clustering.inertia:.6g} after {clustering.num_iterations} iterations; sizes {sizes.min()} "
              f"to {sizes.max()}; written to {output}", highlight=False)  # fmt: skip


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint.pt, or the folder of a run.")],
    assignments: Assignments = None,
    as_json: AsJson = False,
) -> None:
    """Linear probe and nearest neighbours of a checkpoint; --set evaluate.* or data.* changes the protocol."""
    from clray.config import override, parse_assignment

    if not checkpoint.exists():
        raise UserError(f"{checkpoint}: no such checkpoint; give a checkpoint.pt or the folder of a run")
    with _status("loading", quiet=as_json):
        from clray.clusters.statistics import cluster_statistics
        from clray.data.datasets import check_files, load_dataset
        from clray.model.encoder import ContrastiveModel
        from clray.train import run
        from clray.train.session import LocalSession, default_device
        from clray.train.state import read_checkpoint

        saved = read_checkpoint(checkpoint)
        config = override(Config.model_validate(saved["config"]), dict(map(parse_assignment, assignments or [])))
        check_files(config.data)
        data = load_dataset(config.data)
        model = ContrastiveModel(config.encoder, config.head, saved["num_channels"])
        model.load_state_dict(saved["model"])
        session = LocalSession(checkpoint, None, lambda _: None, default_device())
        metrics = {"epoch": saved["epoch"], **run.evaluate(config, model.to(session.device), data, session)}
        if len(saved["cluster_ids"]) == len(data.train):
            ids = saved["cluster_ids"].numpy()
            metrics |= cluster_statistics(ids, data.train.labels, saved["num_clusters"]).as_metrics()
    _print_values(metrics, as_json)


@app.command()
def statistics(
    table: Annotated[Path, typer.Argument(metavar="TABLE.csv", help="CSV or Parquet.")],
    clusters: Annotated[str, typer.Option(help="Column of the clusters Z.")],
    labels: Annotated[str, typer.Option(help="Column of the labels T.")],
    as_json: AsJson = False,
) -> None:
    """I(Z;T), H(Z|T) and their kin, in bits, for two columns of a table."""
    from clray.clusters.statistics import cluster_statistics
    from clray.data.metadata import encode_values, read_metadata_csv, read_metadata_parquet, require_column

    is_parquet = table.is_dir() or table.suffix == ".parquet"
    frame = read_metadata_parquet(table, [clusters, labels]) if is_parquet else read_metadata_csv(table)
    z, t = (encode_values(require_column(table, frame, column)) for column in (clusters, labels))
    _print_values(cluster_statistics(z, t).as_metrics(), as_json)


@app.command()
def doctor(as_json: AsJson = False, tracking_uri: TrackingUri = None) -> None:
    """Versions, GPUs, the FAISS build, and whether Ray and MLflow can be reached."""
    import platform
    from importlib import metadata

    checks: dict[str, str] = {"python": platform.python_version()}
    for package in ("clray", "torch", "torchvision", "ray", "mlflow", "kornia", "numpy"):
        try:
            checks[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            checks[package] = "missing: pip install clray"
    problems = [name for name, value in checks.items() if value.startswith("missing")]

    def check(name: str, probe: Any) -> None:
        try:
            checks[name] = probe()
        except Exception as error:  # whatever is broken is what doctor reports
            lines = str(error).strip().splitlines()
            checks[name] = f"broken: {lines[0] if lines else type(error).__name__}"
            problems.append(name)

    def probe_faiss() -> str:
        import faiss

        return f"{faiss.__version__}, {faiss.get_num_gpus()} GPUs, {faiss.omp_get_max_threads()} threads"

    def probe_torch() -> str:
        import torch
        import torchvision  # noqa: F401  (a mismatched pair fails here)

        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return ", ".join(names) or "none (CPU only)"

    def probe_ray() -> str:
        import ray

        from clray.train.launch import start_ray

        start_ray(needed_cpus=1)
        resources = ray.cluster_resources()
        where = os.environ.get("RAY_ADDRESS") or "local cluster"
        return f"{where}: {resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"

    def probe_mlflow() -> str:
        from clray.track.mlflow import check_server

        if tracking_uri is None:
            return "SQLite in the output folder"
        check_server(tracking_uri)
        return f"{tracking_uri} answers"

    with _status("looking around", quiet=as_json):
        for name, probe in (("faiss", probe_faiss), ("gpus", probe_torch), ("ray cluster", probe_ray),
                            ("tracking", probe_mlflow)):  # fmt: skip
            check(name, probe)
    if as_json:
        _print_json(checks)
    else:
        grid = Table(box=None, show_header=False, pad_edge=False)
        for name, value in checks.items():
            grid.add_row(name, f"[red]{escape(value)}[/red]" if name in problems else escape(value))
        out.print(grid)
    if problems:
        raise typer.Exit(1)


def _resolve(path: Path, assignments: list[str] | None, output: str | None, tracking_uri: str | None) -> Config:
    chosen = list(assignments or [])
    if output is not None:
        chosen.append(f"output={json.dumps(output)}")
    if tracking_uri is not None:
        chosen.append(f"tracking.uri={json.dumps(tracking_uri)}")
    return load_config(path, chosen)


def _claim_folder(config: Config, path: Path, name: str | None, resume: bool) -> Path:
    """The run's folder, checked before anything is started; never one that holds another run."""
    if resume and name is None:
        raise UserError("--resume: name the run to go on with, for example --name quickstart-20260101-120000")
    folder = Path(config.output) / (name or f"{path.stem}-{time.strftime('%Y%m%d-%H%M%S')}")
    if Path(config.output).exists() and not Path(config.output).is_dir():
        raise UserError(f"output: {config.output} is a file; choose a folder with --output")
    is_used = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    if resume:
        saved_path = folder / "config.yaml"
        if not saved_path.exists():
            raise UserError(f"--resume: {folder} holds no run to go on with")
        _require_same_config(config, saved_path)
    elif is_used:
        raise UserError(f"{folder} holds another run; go on with it with --resume, or choose another --name")
    return folder


def _require_same_config(config: Config, saved_path: Path) -> None:
    def comparable(tree: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in flatten(tree).items() if key != "output" and key[:9] != "tracking."}

    saved = comparable(load_config(saved_path).model_dump(mode="json"))
    given = comparable(config.model_dump(mode="json"))
    changed = [key for key in given if given[key] != saved.get(key)]
    if changed:
        key = changed[0]
        raise UserError(
            f"--resume: the config differs from {saved_path} in {', '.join(changed)} ({key} is {given[key]!r}, was "
            f"{saved.get(key)!r}); resume with the same config, or start a new run"
        )


def _write_config(config: Config, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(dump_yaml(config), encoding="utf-8")


def _prepare(config: Config, folder: Path, verbose: bool) -> tuple[Any, Any]:
    """Data set and MLflow store, made side by side; every error of the user's comes up here, before Ray starts."""
    from clray.track.mlflow import check_server, open_store, quiet, store_uri

    output = Path(config.output)
    check_server(store_uri(config.tracking, output))
    from clray.data.datasets import check_files, load_dataset

    check_files(config.data)
    data = load_dataset(config.data)
    if data.skipped:
        err.print(f"[yellow]left out {len(data.skipped)} bad images[/yellow], the first: {escape(data.skipped[0])}")
    output.mkdir(parents=True, exist_ok=True)
    if not verbose:
        # Beside the run until it has a folder of its own; MLflow and Ray write here.
        log_file = output / "clray.log"
        quiet(log_file, "ray", "mlflow", "alembic", "clray")
        warnings.simplefilter("ignore")
        logging.getLogger("alembic").setLevel(logging.INFO)
    return data, open_store(config.tracking, output)


@contextmanager
def _epoch_progress(config: Config) -> Any:
    columns = (TextColumn("epoch"), BarColumn(), TextColumn("{task.completed}/{task.total} {task.description}"),
               TimeElapsedColumn(), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("", total=config.train.num_epochs)

        def show(metrics: dict[str, float]) -> None:
            text = f"loss {metrics['train/loss']:.3f}, {metrics['train/samples_per_second']:.0f} images/s"
            if "eval/linear_accuracy" in metrics:
                text += f", linear {100 * metrics['eval/linear_accuracy']:.1f} %"
            progress.update(task, completed=metrics["epoch"], description=text)

        yield show


@contextmanager
def _status(text: str, *, quiet: bool) -> Any:
    if quiet or not out.is_terminal:
        yield
        return
    with err.status(text):
        yield


def _print_values(values: dict[str, float], as_json: bool) -> None:
    if as_json:
        _print_json(values)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in values.items():
        table.add_row(name, f"{value:.6f}" if isinstance(value, float) else str(value))
    out.print(table)


def _print_json(tree: Any) -> None:
    sys.stdout.write(json.dumps(tree, indent=2) + "\n")


def _print_paths(config: Config, uri: str, paths: dict[str, Path]) -> None:
    from clray.track.mlflow import ui_command

    for name, path in paths.items():
        out.print(f"{name:<10} {path}", highlight=False, soft_wrap=True)
    out.print(f"{'compare':<10} {ui_command(uri)}", highlight=False, soft_wrap=True)
    out.print(f"{'log':<10} {Path(config.output) / 'clray.log'}", highlight=False, soft_wrap=True)
