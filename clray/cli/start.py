"""What `train` and `sweep` share: options, the resolved config, data and store, and what to type next."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clray.cli.terminal import err, log_to_file, print_error, print_note, print_values
from clray.config import Config, load_config, override
from clray.redaction import hide_credentials

if TYPE_CHECKING:
    from clray.data.load import Dataset
    from clray.track.mlflow import Store
    from clray.track.runs import Tracker

JOB_FOLDER = "working_dir_files"
"""In the path of the folder in which `ray job submit` runs a command."""
ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The experiment; see tune_configs/.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a config key.")]
OutputRoot = Annotated[str | None, typer.Option("--output", "-o", help="Folder that holds the runs and the store.")]
Name = Annotated[str | None, typer.Option(help="The run's folder in the output folder; by default named by time.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run of this --name.")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow server; by default an SQLite store beside the runs.")]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Show the resolved config and stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the messages of Ray and MLflow.")]


def resolve(path: Path, assignments: list[str] | None, output: str | None, tracking_uri: str | None) -> Config:
    """The config with the command's options in it."""
    chosen = list(assignments or [])
    if output is not None:
        chosen.append(f"output={json.dumps(output)}")
    if tracking_uri is not None:
        chosen.append(f"tracking.uri={json.dumps(tracking_uri)}")
    config = load_config(path, chosen)
    if JOB_FOLDER in str(Path.cwd()) and not Path(config.output).is_absolute():
        kept = Path.home() / "clray" / config.output
        print_note(f"Ray deletes a job's own folder; results go to {kept}. Set output to choose another place")
        config = override(config, {"output": str(kept)})
    return config


def prepare_data(config: Config, verbose: bool) -> "Dataset":
    """The data set; what is wrong with it, or with the places that results go to, comes up here, before Ray starts."""
    from clray.data.load import check_files, load_dataset
    from clray.track.mlflow import check_server, store_uri

    output = Path(config.output)
    check_server(store_uri(config.tracking, output))
    check_files(config.data)
    data = load_dataset(config.data)
    if data.skipped:
        err.print(f"[yellow]left out {len(data.skipped)} bad images[/yellow], the first:", end=" ")
        err.print(data.skipped[0], markup=False, soft_wrap=True)
    for note in data.notes:
        print_note(note)
    output.mkdir(parents=True, exist_ok=True)
    if not verbose:
        log_to_file(_log_file(config), "ray", "mlflow", "alembic", "clray")
    return data


def prepare_store(config: Config) -> "Store":
    """The MLflow store, made where there is none."""
    from clray.track.mlflow import open_store

    return open_store(config.tracking, Path(config.output))


def close_tracker(tracker: "Tracker", config: Config) -> None:
    """Wait for MLflow; where its server stays away, say how to upload what is kept."""
    left = tracker.close(config.tracking.wait_seconds)
    if left:
        err.print(
            f"[yellow]the MLflow store is away[/yellow]: {left} entries are kept in {tracker.folder}. "
            f"When it is back: clray upload {tracker.folder} --tracking-uri {hide_credentials(tracker.store.uri)}",
            soft_wrap=True,
        )


@contextmanager
def cluster_watched(tracker: "Tracker", config: Config, command: str) -> Iterator[None]:
    """Where the head of the Ray cluster is lost meanwhile, say so and how to go on, and end the process."""
    from clray.ray_runtime.head import head_watched

    def leave(reason: str) -> None:
        print_error("failed", reason)
        tracker.end_open("KILLED")
        close_tracker(tracker, config)
        err.print(f"Go on with: {command}", soft_wrap=True)
        os._exit(1)  # whatever asks the cluster on the way out would hang

    with head_watched(print_note, leave):
        yield


def again(command: str, path: Path, assignments: list[str] | None, config: Config, folder: Path) -> str:
    """The command that goes on with an interrupted run."""
    sets = "".join(f" --set {assignment}" for assignment in assignments or [])
    uri = f" --tracking-uri {config.tracking.uri}" if config.tracking.uri else ""
    sets, uri = hide_credentials(sets), hide_credentials(uri)
    return f"clray {command} {path}{sets}{uri} --output {config.output} --name {folder.name} --resume"


def print_places(config: Config, tracker: "Tracker", paths: dict[str, Any]) -> None:
    """Where results, store and log are."""
    from clray.track.mlflow import ui_command

    page = tracker.page_of(tracker.folder.name)
    shown = {} if page is None else {"page": hide_credentials(page)}
    print_values(
        {**paths, "compare": hide_credentials(ui_command(tracker.store.uri)), **shown, "log": _log_file(config)}
    )


def _log_file(config: Config) -> Path:
    return Path(config.output).resolve() / "clray.log"
