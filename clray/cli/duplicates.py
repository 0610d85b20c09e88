"""clray duplicates: near-duplicates within the clusters of a clustering; parsing and printing only."""

from pathlib import Path
from typing import Annotated

import typer

from clray.cli.cluster import Column, Local, Output, resumable
from clray.cli.flags import flags_named
from clray.cli.options import AsJson, Verbose
from clray.cli.terminal import print_values, progress

ARGUMENTS = {name: "--" + name.replace("_", "-") for name in ("cosine", "num_clusters", "memory", "resume", "vectors",
                                                              "output")}  # fmt: skip


def duplicates(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="The output folder of clray cluster.")],
    output: Output,
    cosine: Annotated[float, typer.Option(help="Similarity from which two vectors are near-duplicates.")] = 0.95,
    vectors: Annotated[
        Path | None, typer.Option(help="The vectors that were clustered, where they lie elsewhere now.")
    ] = None,
    num_clusters: Annotated[
        int | None, typer.Option("--num-clusters", "-k", help="The granularity; by default the finest.")
    ] = None,
    column: Column = None,
    memory: Annotated[str, typer.Option(help="Of the vectors that a task holds.")] = "512MiB",
    local: Local = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the search in --output.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Vectors nearly equal to an earlier one of their cluster: duplicates.csv, and kept.csv with all others."""
    from clray.kmeans.duplicates import ASKED_FILE
    from clray.kmeans.duplicates import duplicates as run

    with (
        resumable(output, ASKED_FILE),
        flags_named(ARGUMENTS),
        progress("groups of clusters", None, quiet=as_json) as show,
    ):
        found = run(
            result, vectors, cosine=cosine, num_clusters=num_clusters, column=column, memory=memory,
            use_ray=not local, output=output, resume=resume, verbose=verbose,
            on_group=lambda done, total: show(done / total, f"{done}/{total}"),
        )  # fmt: skip
    shown = {"duplicates": len(found.rows), "kept": found.num_vectors - len(found.rows), "output": str(output)}
    print_values(shown, as_json=as_json)
