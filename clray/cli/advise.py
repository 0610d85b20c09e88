"""clray advise: which points of a search space are worth training; parsing and printing only."""

from typing import TYPE_CHECKING

from clray.cli.options import AsJson, Assignments, ConfigPath, OutputRoot, Verbose
from clray.cli.start import CommandObserver, resolve
from clray.cli.terminal import compact_table, out, print_json, print_line

if TYPE_CHECKING:
    from rich.table import Table

    from clray.sweeps.prescreen import Prescreen

COLUMNS = {
    "clusters/num_clusters": ("clusters", 0),
    "clusters/adjusted_mutual_information_bits": ("I(Z;T) above chance", 2),
    "clusters/conditional_entropy_bits": ("H(Z|T)", 2),
    "clusters/ami": ("AMI", 2),
    "clusters/first_stability": ("stability", 2),
    "clusters/first_silhouette": ("silhouette", 2),
}
"""Heading and digits of the figures that the table shows, where they are known."""


def advise(
    path: ConfigPath,
    assignments: Assignments = None,
    output: OutputRoot = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Say which points of the search space have clusters worth training with, by their first clusters.

    Trains the epochs before the first clustering, once for all points that share them, and keeps nothing.
    """
    config, overrides = resolve(path, assignments, output, None, None)
    from clray.sweeps.search_space import plan_sweep

    plan_sweep(config)
    observer = CommandObserver("advise", path, assignments, config, as_json=as_json, verbose=verbose)
    from clray import forecasts

    found = forecasts.advise(path, overrides, verbose=verbose, observer=observer)
    if as_json:
        print_json(found.as_dict())
        return
    out.print(_table(found))
    for name, look in found.left_out.items():
        print_line(f"{name}: {look.reason}")
    print_line(found.sentence)


def _table(found: "Prescreen") -> "Table":
    shown = {name: column for name, column in COLUMNS.items() if any(name in each.figures for each in found.looks)}
    table = compact_table(("point", "left"), *((heading, "right") for heading, _ in shown.values()), ("", "left"))
    for each in found.looks:
        figures = [
            f"{each.figures[name]:.{digits}f}" if name in each.figures else "" for name, (_, digits) in shown.items()
        ]
        table.add_row(each.name, *figures, "worth training" if each.reason is None else "left out")
    for name in found.unseen:
        table.add_row(name, *[""] * len(shown), "trained: no clusters before")
    return table
