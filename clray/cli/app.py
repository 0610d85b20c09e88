"""The command `clray`: train, statistics and doctor here, the others in modules of their own.

torch, Ray and MLflow take seconds to import, so each command imports them after its input has been checked.
"""

import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from clray.cli.checkpoint import embed, evaluate, export
from clray.cli.cluster import cluster
from clray.cli.data import clusters_app, data_app
from clray.cli.report import report, upload
from clray.cli.start import (
    AsJson,
    Assignments,
    ConfigPath,
    Name,
    OutputRoot,
    PrintConfig,
    Resume,
    TrackingUri,
    Verbose,
    again,
    close_tracker,
    cluster_watched,
    prepare_data,
    prepare_store,
    print_places,
    resolve,
)
from clray.cli.status import show_sweeps
from clray.cli.sweep import sweep
from clray.cli.terminal import err, print_error, print_json, print_values, run_progress, status
from clray.config import dump_yaml
from clray.errors import UserError
from clray.redaction import hide_credentials

app = typer.Typer(
    help="Contrastive representation learning with clusters (Cl-InfoNCE) on Ray, FAISS and MLflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point: 0 is success, 2 the user's error, 1 a failure, 130 an interruption."""
    try:
        app()
    except UserError as error:
        print_error("error", hide_credentials(str(error)))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if "-v" in sys.argv or "--verbose" in sys.argv:
            sys.stderr.write(hide_credentials(traceback.format_exc()))
            sys.exit(1)
        print_error("failed", hide_credentials(str(error)).strip() or type(error).__name__)
        err.print("Run again with -v for the whole traceback.")
        sys.exit(1)


@app.command()
def train(
    context: typer.Context,
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
    config = resolve(path, assignments, output, tracking_uri)
    if print_config:
        sys.stdout.write(dump_yaml(config))
        return
    from clray.train.folder import claim_folder, folder_held, write_config

    folder = claim_folder(config, path, name, resume)
    with status("preparing data, MLflow store and Ray", quiet=as_json):
        data = prepare_data(config, verbose)
        from clray.ray_runtime.cluster import require_shared_folder
        from clray.track.runs import Tracker
        from clray.track.single import log_result
        from clray.train.health import warn_of_collapse
        from clray.train.storage import keep_results
        from clray.train.trainer import check_against_data
        from clray.train.workers.launch import launch, start_for_run
        from clray.train.workers.resources import needs_ray
        from clray.train.workers.session import read_metrics

        check_against_data(config, data)
        context.with_resource(folder_held(folder, resume=resume))
        store = prepare_store(config)
        service = start_for_run(config, verbose=verbose)
        if needs_ray(config):
            require_shared_folder(folder)
        write_config(config, folder)
        keep_results(config, folder, folder.name)
        tracker = Tracker(store, folder)
        logger = tracker.start_run(kind="run", run_id=folder.name, name=folder.name, config=config)
        logger.log_dataset(data, config.data)
    ended, command = "KILLED", again("train", path, assignments, config, folder)
    try:
        with (
            cluster_watched(tracker, config, command),
            run_progress(config.train.num_epochs, quiet=as_json) as progress,
        ):

            def on_report(metrics: dict[str, float]) -> None:
                logger(metrics)
                progress.epoch(metrics)
                warn_of_collapse(metrics, folder.name)

            launch(config, data, folder, service=service, on_report=on_report, on_step=progress.step)
        log_result(logger, folder, config, data)
        keep_results(config, folder, folder.name)
        ended = "FINISHED"
    except Exception:
        ended = "FAILED"
        raise
    finally:
        logger.finish(ended)
        close_tracker(tracker, config)
        if ended != "FINISHED":
            err.print(f"Go on with: {command}", soft_wrap=True)
    metrics = read_metrics(folder)[-1]
    if as_json:
        print_json({"folder": str(folder), "metrics": metrics})
        return
    print_values({key: metrics[key] for key in sorted(metrics) if key.startswith(("eval/", "clusters/"))})
    print_places(config, tracker, {"checkpoint": folder})


app.command()(sweep)
app.command()(cluster)
app.command()(evaluate)
app.command()(export)
app.command()(embed)
app.command()(report)
app.command()(upload)
app.command("status")(show_sweeps)
app.add_typer(data_app, name="data")
app.add_typer(clusters_app, name="clusters")


@app.command()
def statistics(
    table: Annotated[Path, typer.Argument(metavar="TABLE.csv", help="CSV or Parquet.")],
    clusters: Annotated[str, typer.Option(help="Column of the clusters Z.")],
    labels: Annotated[str, typer.Option(help="Column of the labels T.")],
    as_json: AsJson = False,
) -> None:
    """I(Z;T), H(Z|T) and their kin, in bits, for two columns of a table."""
    from clray.clusters.statistics import cluster_statistics
    from clray.data.readers.tables import encode_values, read_columns

    z, t = (encode_values(column) for column in read_columns(table, (clusters, labels)))
    print_values(cluster_statistics(z, t).as_metrics(), as_json=as_json)


@app.command()
def doctor(tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """Versions, GPUs, the FAISS build, and whether Ray and MLflow can be reached."""
    from clray.cli.doctor import examine

    with status("looking around", quiet=as_json):
        checks = examine(tracking_uri)
    print_values({check.name: check.finding for check in checks}, as_json=as_json)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
