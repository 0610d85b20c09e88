"""clray curate: a balanced sample of a clustering; parsing and printing only."""

from pathlib import Path
from typing import Annotated

import typer

from clray.cli.flags import flags_named
from clray.cli.options import AsJson
from clray.cli.terminal import print_values


def curate(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="The output folder of clray cluster.")],
    num_samples: Annotated[int, typer.Option("--num-samples", "-n", help="Rows to sample.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="A new CSV for the rows.")],
    num_clusters: Annotated[
        int | None,
        typer.Option("--num-clusters", "-k", help="One granularity; by default all levels of nested ones."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    as_json: AsJson = False,
) -> None:
    """A balanced sample of clustered vectors: as many rows from each cluster as it has, level by level."""
    import numpy as np

    from clray.clusters.curate import curate as choose
    from clray.clusters.saved import open_clustering
    from clray.kmeans.rows import check_table, vectors_of, write_rows

    with flags_named({"num_samples": "--num-samples", "num_clusters": "--num-clusters", "output": "--output"}):
        check_table(output)
        clustering = open_clustering(result)
        rows = choose(clustering, num_samples, num_clusters=num_clusters, seed=seed)
        finest = clustering.num_clusters[0] if num_clusters is None else num_clusters
        clusters = clustering.ids(finest)[rows]
        vectors = vectors_of(clustering.source, clustering.num_vectors)
    write_rows(output, rows, {"cluster": clusters}, vectors)
    counts = np.bincount(clusters, minlength=finest)
    print_values(
        {
            "rows": len(rows),
            "clusters": int((counts > 0).sum()),
            "most_from_one": int(counts.max()),
            "output": str(output),
        },
        as_json=as_json,
    )
