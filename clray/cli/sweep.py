"""clray sweep: plan, dry run, run, and what it leaves behind."""

import json
import sys
import time
from typing import Annotated

import typer

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
from clray.cli.terminal import err, out, print_error, print_json, status
from clray.config import dump_yaml, override


def sweep(
    context: typer.Context,
    path: ConfigPath,
    assignments: Assignments = None,
    output: OutputRoot = None,
    name: Name = None,
    resume: Resume = False,
    tracking_uri: TrackingUri = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the trials and estimate the time; run none.")
    ] = False,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="End at the first trial that fails.")] = False,
    print_config: PrintConfig = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Run every point of the search space, and draw accuracy over I(Z;T) and H(Z|T)."""
    started = time.monotonic()
    config = resolve(path, assignments, output, tracking_uri)
    from clray.sweep.search_space import plan_sweep
    from clray.train.folder import claim_folder, folder_held, write_config

    plan = plan_sweep(config)
    if print_config:
        sys.stdout.write(dump_yaml(config))
        return
    folder = claim_folder(config, path, name, resume)
    if not as_json and not dry_run:
        out.print(f"[bold]{plan.num_trials} trials[/bold], results in {folder}", highlight=False, soft_wrap=True)
    with status("preparing data, MLflow store and Ray", quiet=as_json):
        data = prepare_data(config, verbose)
        from clray.sweep.display import LiveTable, result_table
        from clray.sweep.summary import conclude
        from clray.sweep.trials import rank_records
        from clray.sweep.tuner import check_points, run_sweep, start_for_sweep
        from clray.track.runs import Tracker

        check_points(plan.samples, data)
        if not dry_run:
            context.with_resource(folder_held(folder, resume=resume))
        store = None if dry_run else prepare_store(config)
        num_at_once = start_for_sweep(config, plan.samples, verbose=verbose)
    if store is None:
        from clray.sweep.dry_run import estimate, trial_table

        found = estimate(plan, data, num_at_once)
        if as_json:
            print_json(found.as_dict())
        else:
            out.print(trial_table(plan, found))
            out.print(found.sentence, highlight=False, soft_wrap=True)
        return
    from clray.ray_runtime.cluster import require_shared_folder
    from clray.sweep.watching import Watch
    from clray.train.storage import keep_results

    require_shared_folder(folder)
    write_config(config, folder)
    keep_results(config, folder, folder.name)
    watch = Watch(folder.name, plan.num_trials, config.sweep.metric)
    tracker = Tracker(store, folder)
    timing = {"start_up_seconds": time.monotonic() - started}
    running = override(config, {"sweep.fail_fast": True}) if fail_fast else config
    command = again("sweep", path, assignments, config, folder)
    try:
        with (
            cluster_watched(tracker, config, command),
            LiveTable(err if as_json else out, config, plan.num_trials) as display,
        ):
            records, parent = run_sweep(running, plan, data, folder, num_at_once, tracker, display, watch)
    except Exception:
        tracker.end_open("FAILED")
        close_tracker(tracker, config)
        err.print(f"Go on with: {command}", soft_wrap=True)
        raise
    timing["wall_seconds"] = time.monotonic() - started
    timing["trials_seconds"] = timing["wall_seconds"] - timing["start_up_seconds"]
    ranked = rank_records(records, config)
    num_open = sum(record.is_open for record in records) + plan.num_trials - len(records)
    with status("writing results, pictures and the best model", quiet=as_json):
        places = conclude(config, ranked, data, folder, tracker, parent, timing)
        keep_results(config, folder, folder.name)
        parent.finish("KILLED" if num_open else "FINISHED")
        close_tracker(tracker, config)

    if as_json:
        print_json(json.loads(places["results"].read_text(encoding="utf-8")))
    else:
        out.print(result_table(ranked))
        print_places(config, tracker, places)
    for record in records:
        if record.error is not None:
            print_error("failed", f"{record.point.name}: {record.error} {json.dumps(record.point.overrides)}")
    if num_open:
        err.print(f"{num_open} trials are open. Go on with: {command}", soft_wrap=True)
        raise typer.Exit(130)
    if not any(config.sweep.metric in record.metrics for record in records) or any(r.error for r in records):
        raise typer.Exit(1)
