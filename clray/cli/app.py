"""The command `clray`: statistics and doctor here, the others in modules of their own.

torch, Ray and MLflow take seconds to import, so each command imports them after its input has been checked.
"""

import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from clray.cli import stops
from clray.cli.checkpoint import embed, evaluate, export
from clray.cli.cluster import cluster
from clray.cli.data import clusters_app, data_app
from clray.cli.options import AsJson, TrackingUri
from clray.cli.report import report, upload
from clray.cli.status import show_sweeps
from clray.cli.sweep import sweep
from clray.cli.terminal import err, print_error, print_line, print_values, status
from clray.cli.train import train
from clray.console import as_shown
from clray.errors import UserError

app = typer.Typer(
    help="Contrastive representation learning with clusters (Cl-InfoNCE) on Ray, FAISS and MLflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Entry point: 0 is success, 2 the user's error, 1 a failure, 128 and a signal's number an interruption."""
    stops.listen()
    try:
        app()
    except SystemExit as ended:
        if not stops.finish_output() or (ended.code == 1 and stops.is_output_closed()):
            sys.exit(128 + signal.SIGPIPE)
        sys.exit(stops.exit_code(otherwise=ended.code))
    except UserError as error:
        print_error("error", str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(stops.exit_code())
    except Exception as error:
        if "-v" in sys.argv or "--verbose" in sys.argv:
            sys.stderr.write(as_shown(traceback.format_exc()))
            sys.exit(1)
        print_error("failed", str(error).strip() or type(error).__name__)
        print_line("Run again with -v for the whole traceback.", err)
        sys.exit(1)


app.command()(train)
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
    from clray.data.readers.columns import encode_values
    from clray.data.readers.tables import read_columns

    z, t = (encode_values(column) for column in read_columns(table, (clusters, labels)))
    print_values(cluster_statistics(z, t).as_metrics(), as_json=as_json)


@app.command()
def doctor(tracking_uri: TrackingUri = None, as_json: AsJson = False) -> None:
    """Versions, GPUs, the FAISS build, and whether Ray and MLflow can be reached."""
    from clray.cli.doctor import examine

    with status("checking", quiet=as_json):
        checks = examine(tracking_uri)
    print_values({check.name: check.finding for check in checks}, as_json=as_json)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
