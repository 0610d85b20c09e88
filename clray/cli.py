"""clray train | sweep | cluster | export | embed | report | evaluate | statistics | doctor: parsing and printing only.

torch, Ray and MLflow take seconds to import, so each command imports them after its input has been checked.
"""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clray.checkpoint_commands import embed, evaluate, export
from clray.cluster_command import cluster
from clray.config import Config, UserError, dump_yaml, load_config
from clray.terminal import (
    compact_table,
    err,
    log_to_file,
    out,
    print_error,
    print_json,
    print_values,
    run_progress,
    status,
)

if TYPE_CHECKING:
    from clray.data.datasets import Dataset
    from clray.track.mlflow import Store

app = typer.Typer(
    help="Contrastive representation learning with clusters (Cl-InfoNCE) on Ray, FAISS and MLflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

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
        print_error("error", str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if "-v" in sys.argv or "--verbose" in sys.argv:
            raise
        print_error("failed", str(error).strip() or type(error).__name__)
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
    from clray.train.folder import claim_folder, write_config

    folder = claim_folder(config, path, name, resume)
    with status("preparing data, MLflow store and Ray", quiet=as_json):
        data, store = _prepare(config, verbose)
        from clray.train.health import warn_of_collapse
        from clray.train.launch import launch, start_for_run
        from clray.train.run import check_against_data
        from clray.train.session import read_metrics

        check_against_data(config, data)
        service = start_for_run(config, verbose=verbose)
        write_config(config, folder)
        logger = store.start_run(kind="run", run_id=folder.name, name=folder.name, config=config)
    ended = "KILLED"
    try:
        with run_progress(config.train.num_epochs, quiet=as_json) as progress:

            def show(metrics: dict[str, float]) -> None:
                progress.epoch(metrics)
                warn_of_collapse(metrics, folder.name)

            launch(config, data, folder, service=service, record=logger, show=show, on_step=progress.step)
        ended = "FINISHED"
    except Exception:
        ended = "FAILED"
        raise
    finally:
        logger.finish(ended)
        if ended != "FINISHED":
            err.print(f"Go on with: {_again('train', path, assignments, config, folder)}", soft_wrap=True)
    metrics = read_metrics(folder)[-1]
    if as_json:
        print_json({"folder": str(folder), "metrics": metrics})
        return
    print_values({key: metrics[key] for key in sorted(metrics) if key.startswith(("eval/", "clusters/"))})
    _print_places(config, store, {"checkpoint": folder})


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
    from clray.train.folder import claim_folder, write_config

    points = draw_points(config)
    if print_config:
        sys.stdout.write(dump_yaml(config))
        return
    folder = claim_folder(config, path, name, resume)
    if not as_json:
        out.print(f"[bold]{len(points)} trials[/bold], results in {folder}", highlight=False, soft_wrap=True)
    with status("preparing data, MLflow store and Ray", quiet=as_json):
        data, store = _prepare(config, verbose)
        from clray.sweep.display import LiveTable, result_table
        from clray.sweep.trials import draw_picture, rank_records, write_results
        from clray.sweep.tuner import check_points, run_sweep, start_for_sweep

        check_points(points, data)
        start_for_sweep(config, points, verbose=verbose)
        write_config(config, folder)
    timing = {"start_up_seconds": time.monotonic() - started}
    with LiveTable(err if as_json else out, config, len(points)) as display:
        records, parent = run_sweep(config, points, data, folder, store, display)
    timing["wall_seconds"] = time.monotonic() - started
    timing["trials_seconds"] = timing["wall_seconds"] - timing["start_up_seconds"]
    ranked = rank_records(records, config)
    results = write_results(ranked, folder, timing)
    picture = draw_picture(ranked, data, config, folder)
    is_open = any(record.is_open for record in records)
    has_best = config.sweep.metric in ranked[0].metrics
    for file in filter(None, (results, picture)):
        parent.log_file(file)
    if has_best and ranked[0].mlflow is not None:
        parent.log_best(ranked[0].point.name, ranked[0].metrics, ranked[0].mlflow)
    parent.finish("KILLED" if is_open else "FINISHED")

    if as_json:
        print_json(json.loads(results.read_text(encoding="utf-8")))
    else:
        out.print(result_table(ranked))
        places = {"results": results} if picture is None else {"results": results, "picture": picture}
        _print_places(config, store, places)
    for record in records:
        if record.error is not None:
            print_error("failed", f"{record.point.name}: {record.error} {json.dumps(record.point.overrides)}")
    if is_open:
        again = _again("sweep", path, assignments, config, folder)
        err.print(f"{sum(record.is_open for record in records)} trials are open. Go on with: {again}", soft_wrap=True)
        raise typer.Exit(130)
    if not has_best or any(record.error is not None for record in records):
        raise typer.Exit(1)


app.command()(cluster)
app.command()(evaluate)
app.command()(export)
app.command()(embed)


@app.command()
def statistics(
    table: Annotated[Path, typer.Argument(metavar="TABLE.csv", help="CSV or Parquet.")],
    clusters: Annotated[str, typer.Option(help="Column of the clusters Z.")],
    labels: Annotated[str, typer.Option(help="Column of the labels T.")],
    as_json: AsJson = False,
) -> None:
    """I(Z;T), H(Z|T) and their kin, in bits, for two columns of a table."""
    from clray.clusters.statistics import cluster_statistics
    from clray.data.metadata import encode_values, read_columns

    z, t = (encode_values(column) for column in read_columns(table, (clusters, labels)))
    print_values(cluster_statistics(z, t).as_metrics(), as_json=as_json)


@app.command()
def report(
    name: Annotated[
        str, typer.Argument(metavar="SWEEP", help="Name or MLflow run id of a sweep, or latest.")
    ] = "latest",
    output: Annotated[str, typer.Option("--output", "-o", help="Folder that holds the store.")] = "outputs",
    tracking_uri: TrackingUri = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False,
    as_json: AsJson = False,
) -> None:
    """Mean and spread of accuracy over a sweep's repeats, beside I(Z;T) and H(Z|T); reads the MLflow store alone."""
    from clray.track.mlflow import check_server, existing_store_uri

    uri = existing_store_uri(tracking_uri, Path(output))
    check_server(uri)
    with status("reading the store", quiet=as_json or as_markdown):
        from clray.track import report as reports
        from clray.track.results import read_sweep

        summaries = reports.summarize(read_sweep(uri, name))
    correlations = reports.correlations(summaries)
    if as_json:
        tree = {"points": [asdict(each) for each in summaries], "correlations": [asdict(each) for each in correlations]}
        print_json(tree)
    elif as_markdown:
        sys.stdout.write(reports.as_markdown(summaries))
    else:
        table = compact_table(*((heading, "left" if heading == "point" else "right") for heading in reports.HEADER))
        table.columns[0].overflow = "fold"
        for row in reports.as_rows(summaries):
            table.add_row(*row)
        out.print(table)
        for each in correlations:
            out.print(reports.describe(each), highlight=False, soft_wrap=True)


@app.command()
def doctor(tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """Versions, GPUs, the FAISS build, and whether Ray and MLflow can be reached."""
    from clray.doctor import examine

    with status("looking around", quiet=as_json):
        checks = examine(tracking_uri)
    print_values({check.name: check.finding for check in checks}, as_json=as_json)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def _resolve(path: Path, assignments: list[str] | None, output: str | None, tracking_uri: str | None) -> Config:
    chosen = list(assignments or [])
    if output is not None:
        chosen.append(f"output={json.dumps(output)}")
    if tracking_uri is not None:
        chosen.append(f"tracking.uri={json.dumps(tracking_uri)}")
    return load_config(path, chosen)


def _prepare(config: Config, verbose: bool) -> tuple["Dataset", "Store"]:
    """Data set and MLflow store; what is wrong with either comes up here, before Ray starts."""
    from clray.data.datasets import check_files, load_dataset
    from clray.track.mlflow import check_server, open_store, store_uri

    output = Path(config.output)
    check_server(store_uri(config.tracking, output))
    check_files(config.data)
    data = load_dataset(config.data)
    if data.skipped:
        err.print(f"[yellow]left out {len(data.skipped)} bad images[/yellow], the first:", end=" ")
        err.print(data.skipped[0], markup=False, soft_wrap=True)
    output.mkdir(parents=True, exist_ok=True)
    if not verbose:
        log_to_file(_log_file(config), "ray", "mlflow", "alembic", "clray")
    return data, open_store(config.tracking, output)


def _log_file(config: Config) -> Path:
    return Path(config.output).resolve() / "clray.log"


def _again(command: str, path: Path, assignments: list[str] | None, config: Config, folder: Path) -> str:
    """The command that goes on with an interrupted run."""
    sets = "".join(f" --set {assignment}" for assignment in assignments or [])
    uri = f" --tracking-uri {config.tracking.uri}" if config.tracking.uri else ""
    return f"clray {command} {path}{sets}{uri} --output {config.output} --name {folder.name} --resume"


def _print_places(config: Config, store: "Store", paths: dict[str, Any]) -> None:
    from clray.track.mlflow import ui_command

    print_values({**paths, "compare": ui_command(store.uri), "log": _log_file(config)})
