"""clray train: one run; parsing and printing only."""

import sys
from typing import Annotated

import typer

from clray.cli.options import (
    AsJson,
    Assignments,
    ConfigPath,
    Name,
    OutputRoot,
    PrintConfig,
    Register,
    Resume,
    TrackingUri,
    Verbose,
)
from clray.cli.start import CommandObserver, print_places, resolve, resumable
from clray.cli.terminal import print_json, print_values
from clray.config import dump_yaml


def train(
    path: ConfigPath,
    assignments: Assignments = None,
    output: OutputRoot = None,
    name: Name = None,
    resume: Resume = False,
    tracking_uri: TrackingUri = None,
    register: Register = None,
    debug: Annotated[
        bool, typer.Option("--debug", help="Everything in this one process, without Ray, so that pdb works.")
    ] = False,
    print_config: PrintConfig = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train one run; a search space in the file is ignored."""
    config, overrides = resolve(path, assignments, output, tracking_uri, register)
    if print_config:
        sys.stdout.write(dump_yaml(config))
        return
    from clray import runs

    observer = CommandObserver("train", path, assignments, config, as_json=as_json or debug, verbose=verbose)
    with resumable(observer):
        run = runs.train(
            path, overrides, name=name, resume=resume, debug=debug, verbose=verbose, observer=observer
        )  # fmt: skip
    metrics = run.metrics
    if as_json:
        print_json({"folder": str(run.folder), "metrics": metrics})
        return
    print_values({key: metrics[key] for key in sorted(metrics) if key.startswith(("eval/", "test/", "clusters/"))})
    print_places(config, run.tracking_uri, run.page, {"checkpoint": run.folder})
