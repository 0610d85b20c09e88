"""clray sweep: the points of a search space; parsing and printing only."""

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from clray.cli import stops
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
from clray.cli.terminal import out, print_error, print_json, print_line
from clray.config import dump_yaml

if TYPE_CHECKING:
    from clray.runs import SweepResult
    from clray.sweeps.dry_run import Estimate
    from clray.sweeps.search_space import SweepPlan


def sweep(
    path: ConfigPath,
    assignments: Assignments = None,
    output: OutputRoot = None,
    name: Name = None,
    resume: Resume = False,
    tracking_uri: TrackingUri = None,
    register: Register = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the trials and estimate the time; run none.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="End at the first trial that fails.")] = False,
    print_config: PrintConfig = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run every point of the search space, and draw accuracy over I(Z;T) and H(Z|T)."""
    config, overrides = resolve(path, assignments, output, tracking_uri, register)
    from clray.sweeps.search_space import plan_sweep

    plan = plan_sweep(config)
    if print_config:
        sys.stdout.write(dump_yaml(config))
        return
    num_trials = None if dry_run else plan.num_trials
    observer = CommandObserver(
        "sweep", path, assignments, config, num_trials=num_trials, as_json=as_json, verbose=verbose
    )  # fmt: skip
    from clray import forecasts, runs

    if dry_run:
        _print_plan(*forecasts.estimate_sweep(path, overrides, verbose=verbose, observer=observer), as_json=as_json)
        return
    with resumable(observer):
        result = runs.sweep(
            path, overrides, name=name, resume=resume, fail_fast=fail_fast, verbose=verbose, observer=observer
        )  # fmt: skip
    _print_result(result, as_json=as_json)
    _exit_where_incomplete(result, observer)


def _exit_where_incomplete(result: "SweepResult", observer: CommandObserver) -> None:
    """With the code of the interruption, or 1 where a trial failed."""
    if result.num_open:
        print_error("interrupted", f"{result.num_open} trials have not ended")
        observer.print_resume()
        raise typer.Exit(stops.exit_code())
    has_score = any(result.config.sweep.metric in record.metrics for record in result.records)
    if not has_score or any(record.error for record in result.records):
        raise typer.Exit(1)


def _print_plan(plan: "SweepPlan", found: "Estimate", *, as_json: bool) -> None:
    from clray.sweeps.dry_run import trial_table

    if as_json:
        print_json(found.as_dict())
        return
    out.print(trial_table(plan, found))
    print_line(found.sentence)


def _print_result(result: "SweepResult", *, as_json: bool) -> None:
    from clray.sweeps.display import result_table

    if as_json:
        print_json(json.loads(result.places["results"].read_text(encoding="utf-8")))
    else:
        out.print(result_table(result.records, result.config.sweep.metric))
        print_places(result.config, result.tracking_uri, result.page, result.places)
        for sentence in result.answer:
            print_line(sentence)
    for record in result.records:
        if record.error is not None:
            print_error("failed", f"{record.point.name}: {record.error} {json.dumps(record.point.overrides)}")
