"""Options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated, Any

import typer

from clray.config import parse_assignment

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The experiment; see tune_configs/.")]
Assignments = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a config key.")]
DataAssignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A data.* key, such as data.image_size=64.")
]
OutputRoot = Annotated[str | None, typer.Option("--output", "-o", help="Folder that holds the runs and the store.")]
Name = Annotated[str | None, typer.Option(help="The run's folder in the output folder; by default named by time.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run of this --name.")]
TrackingUri = Annotated[str | None, typer.Option(help="MLflow server; by default an SQLite store beside the runs.")]
Register = Annotated[
    str | None, typer.Option(metavar="NAME", help="Register the best encoder in MLflow, as the champion of this name.")
]
PrintConfig = Annotated[bool, typer.Option("--print-config", help="Show the resolved config and stop.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the messages of Ray and MLflow.")]


def read_settings(assignments: list[str] | None) -> dict[str, Any]:
    """The values of `--set` by dotted key; raises UserError for an unknown key."""
    return dict(parse_assignment(text, "--set") for text in assignments or [])


def as_overrides(
    assignments: list[str] | None, output: str | None, tracking_uri: str | None, register: str | None
) -> dict[str, Any]:
    """The command's options as values by dotted key; raises UserError for an unknown key."""
    overrides = read_settings(assignments)
    if output is not None:
        overrides["output"] = output
    if tracking_uri is not None:
        overrides["tracking.uri"] = tracking_uri
    if register is not None:
        overrides["tracking.register_as"] = register
    return overrides
