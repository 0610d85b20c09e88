"""clray report and clray upload: sweeps as an MLflow store holds them, and what a store has not got yet."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clray.cli.options import AsJson, TrackingUri
from clray.cli.terminal import compact_table, err, out, print_json, print_line, status
from clray.errors import UserError
from clray.redaction import show_controls

if TYPE_CHECKING:
    from clray.report.results import Sweep


def report(
    name: Annotated[
        str, typer.Argument(metavar="SWEEP", help="Name or MLflow run id of a sweep, or latest.")
    ] = "latest",
    compare: Annotated[str | None, typer.Option(metavar="SWEEP", help="A second sweep, beside the first.")] = None,
    output: Annotated[str, typer.Option("--output", "-o", help="Folder that holds the store.")] = "outputs",
    tracking_uri: TrackingUri = None,
    html: Annotated[Path | None, typer.Option(help="The page to write; by default SWEEP.html here.")] = None,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print answer and table as Markdown; no page.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the points as CSV, unrounded; no page.")] = False,
    as_json: AsJson = False,
) -> None:
    """A sweep as an answer, a table and one HTML page; reads the MLflow store alone."""
    from clray.track.mlflow import check_server, existing_store_uri
    from clray.training.run_name import as_run_name, check_run_name

    for each in (name, compare):
        if each not in (None, "latest"):
            check_run_name(each, "SWEEP")
    if as_markdown + as_csv + as_json > 1:
        raise UserError("--markdown, --csv and --json: choose one of them")
    uri = existing_store_uri(tracking_uri, Path(output))
    check_server(uri)
    with status("reading the store", quiet=as_json or as_markdown or as_csv):
        from clray.track.results import read_sweep

        sweeps = [read_sweep(uri, each) for each in (name, compare) if each is not None]
    if as_markdown or as_csv or as_json:
        _print_for_machines(sweeps[0], as_markdown=as_markdown, as_csv=as_csv)
        return
    _print_table(sweeps[0])
    with status("drawing the page"):
        from clray.report.page import write_page

        page = write_page(sweeps, html or Path(f"{as_run_name(sweeps[0].name)}.html"))
    if len(sweeps) == 2:
        _print_differences(*sweeps)
    print_line(f"page: {page.resolve()}")


def _print_for_machines(sweep: "Sweep", *, as_markdown: bool, as_csv: bool) -> None:
    from clray.report import markdown
    from clray.report.answer import answer_of, sentences
    from clray.report.correlation import correlations
    from clray.report.summary import summarize

    if as_markdown or as_csv:
        write = markdown.as_markdown if as_markdown else markdown.as_csv
        sys.stdout.write(show_controls(write(sweep, sweep.metric)))
        return
    summaries, answer = summarize(sweep.trials, sweep.metric), answer_of(sweep, sweep.metric)
    tree = {
        "answer": None if answer is None else {"sentences": sentences(answer), **asdict(answer)},
        "points": [asdict(each) for each in summaries],
        "correlations": [asdict(each) for each in correlations(summaries, sweep.metric)],
    }
    print_json(tree)


def _print_table(sweep: "Sweep") -> None:
    from clray.report.answer import describe_answer
    from clray.report.correlation import correlations, describe
    from clray.report.summary import NUM_NARROW, as_rows, header_of, summarize

    summaries = summarize(sweep.trials, sweep.metric)
    table = compact_table(
        *(
            (heading, "left" if heading in ("point", "role") else "right")
            for heading in header_of(summaries)[:NUM_NARROW]
        )
    )
    table.columns[0].overflow = "fold"
    for row in as_rows(summaries):
        table.add_row(*row[:NUM_NARROW])
    out.print(table)
    for line in (" ".join(describe_answer(sweep, sweep.metric)), *map(describe, correlations(summaries, sweep.metric))):
        print_line(line)


def _print_differences(first: "Sweep", second: "Sweep") -> None:
    from clray.report.page import comparison_rows

    table = compact_table(("point", "left"), (first.name, "right"), (second.name, "right"), ("difference", "right"))
    for cells in comparison_rows(first, second, first.metric):
        table.add_row(*cells)
    out.print(table)


def upload(
    context: typer.Context,
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Of a sweep or run whose store could not be reached.")
    ],
    tracking_uri: TrackingUri = None,
) -> None:
    """Write to MLflow what a run kept on disk while its store could not be reached."""
    from clray.config import load_config
    from clray.training.folder import CONFIG_FILE
    from clray.training.run_name import check_run_name

    if not (folder / CONFIG_FILE).exists():
        raise UserError(f"{folder}: not the folder of a clray run or sweep")
    check_run_name(folder.resolve().name, "FOLDER")
    from clray.track.entries import OUTBOX_FILE
    from clray.track.mlflow import check_server, open_store, store_uri

    if not (folder / OUTBOX_FILE).exists():
        raise UserError(f"{folder}: nothing is kept there for MLflow")
    tracking = load_config(folder / CONFIG_FILE).tracking
    tracking = tracking if tracking_uri is None else tracking.model_copy(update={"uri": tracking_uri})
    check_server(store_uri(tracking, folder.parent))
    from clray.folder_lock import folder_locked

    context.with_resource(folder_locked(folder))
    with status("uploading"):
        from clray.track.runs import Tracker

        tracker = Tracker(open_store(tracking, folder.parent), folder)
        tracker.outbox.add_refused()
        before = tracker.outbox.progress.num_entries - tracker.outbox.progress.num_sent
        left = tracker.close(wait_seconds=10)
    print_line(f"{before - left} entries written to {tracker.store.uri}, {left} left", err)
    if left:
        raise typer.Exit(1)
