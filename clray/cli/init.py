"""clray init: a first config for one's own images; parsing and printing only."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from clray.cli.options import DataAssignments, read_settings
from clray.cli.terminal import print_line, print_note, print_values, status


def init(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder of images, Parquet, or a CSV.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The config to write; by default DATA's name here.")
    ] = None,
    assignments: DataAssignments = None,
) -> None:
    """Look at images and write a commented config that trains on them."""
    settings = read_settings(assignments)
    with status("looking at the data"):
        from clray.data.first_config import write_first_config

        path, found = write_first_config(data, output, settings)
    values = {"images": found.num_images, "classes": found.num_classes or "none"}
    print_values({**values, **{key: found.data[key] for key in found.data if key != "train_path"}})
    for note in found.notes:
        print_note(note)
    print_line(f"config: {path}")
    print_line(f"next: {shlex.join(['clray', 'train', str(path)])}")
