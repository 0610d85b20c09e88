"""The command `clray`: its commands, and what becomes of an error.

torch, Ray and MLflow take seconds to import, so each command imports them after its input has been checked.
"""

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import typer

from clray.cli import stops
from clray.cli.advise import advise
from clray.cli.checkpoint import embed, evaluate, export
from clray.cli.cluster import assign, cluster
from clray.cli.config import config
from clray.cli.curate import curate
from clray.cli.data import clusters_app, data_app
from clray.cli.doctor import doctor
from clray.cli.duplicates import duplicates
from clray.cli.flags import with_flags
from clray.cli.init import init
from clray.cli.look import look, neighbours
from clray.cli.report import report, upload
from clray.cli.statistics import statistics
from clray.cli.status import show_sweeps
from clray.cli.sweep import sweep
from clray.cli.terminal import err, print_error, print_line
from clray.cli.train import train
from clray.console import as_shown
from clray.errors import UserError

TRACEBACK = "CLRAY_TRACEBACK"
"""The variable by which any command shows the whole traceback of a failure."""
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
        sys.exit(stops.exit_code(otherwise=int(ended.code or 0)))
    except UserError as error:
        print_error("error", with_flags(str(error)))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(stops.exit_code())
    except Exception as error:
        if "-v" in sys.argv or "--verbose" in sys.argv or os.environ.get(TRACEBACK):
            sys.stderr.write(as_shown(traceback.format_exc()))
            sys.exit(1)
        print_error("failed", with_flags(str(error).strip()) or type(error).__name__)
        way = "Run again with -v" if _takes_verbose(sys.argv[1:]) else f"Set {TRACEBACK}=1 and run again"
        print_line(f"{way} for the whole traceback.", err)
        sys.exit(1)


def _takes_verbose(words: Sequence[str]) -> bool:
    """Whether the command that these words call has the option."""
    command: Any = typer.main.get_command(app)
    for word in words:
        command = getattr(command, "commands", {}).get(word, command)
    return any("-v" in option.opts for option in command.params)


app.command()(init)
app.command()(train)
app.command()(advise)
app.command()(sweep)
app.command()(cluster)
app.command()(assign)
app.command()(curate)
app.command()(duplicates)
app.command()(evaluate)
app.command()(export)
app.command()(embed)
app.command()(report)
app.command()(look)
app.command()(neighbours)
app.command()(upload)
app.command("status")(show_sweeps)
app.command()(statistics)
app.command()(config)
app.command()(doctor)
app.add_typer(data_app, name="data")
app.add_typer(clusters_app, name="clusters")
