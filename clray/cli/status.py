"""clray status: the sweeps that run on a Ray cluster; parsing and printing only."""

import os
import time
from typing import Annotated

import typer

from clray.cli.options import AsJson
from clray.cli.terminal import compact_table, out, print_json
from clray.errors import UserError

ALWAYS = ("pending", "running", "finished")
"""States that are shown also where no trial has them."""


def show_sweeps(
    address: Annotated[
        str | None, typer.Argument(metavar="ADDRESS", help="HOST:PORT of the cluster; by default RAY_ADDRESS.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """The sweeps that run on a Ray cluster: trials by state, and the best so far."""
    if address is None and not os.environ.get("RAY_ADDRESS"):
        raise UserError("give the cluster's HOST:PORT, or set RAY_ADDRESS")
    if address is not None:
        os.environ["RAY_ADDRESS"] = address
    from clray.ray_runtime.cluster import start_ray
    from clray.sweeps.watching import STATES, read_boards

    start_ray()
    sweeps = read_boards()
    if as_json:
        print_json(sweeps)
        return
    if not sweeps:
        out.print("no sweep is running")
        return
    states = [state for state in STATES if state in ALWAYS or any(each[state] for each in sweeps)]
    table = compact_table(
        ("sweep", "left"), *((state, "right") for state in states), ("minutes", "right"), ("best", "left")
    )
    for each in sweeps:
        minutes = f"{(time.time() - each['started']) / 60:.0f}"
        table.add_row(each["sweep"], *(str(each[state]) for state in states), minutes, each["best"] or "")
    out.print(table)
