"""clray statistics: two columns of a table; parsing and printing only."""

from pathlib import Path
from typing import Annotated

import typer

from clray.cli.options import AsJson
from clray.cli.terminal import print_values
from clray.errors import UserError


def statistics(
    table: Annotated[Path, typer.Argument(metavar="TABLE.csv", help="CSV or Parquet.")],
    clusters: Annotated[str, typer.Option(help="Column of the clusters Z.")],
    labels: Annotated[str | None, typer.Option(help="Column of the labels T; without it, what Z alone tells.")] = None,
    as_json: AsJson = False,
) -> None:
    """I(Z;T), H(Z|T) and their kin, in bits, for two columns of a table.

    A label that is empty, null or -1 is none: information is counted over the rows that have one.
    """
    import numpy as np

    from clray.clusters.statistics import cluster_metrics
    from clray.data.readers.columns import encode_labels, encode_values
    from clray.data.readers.tables import read_columns

    names = (clusters,) if labels is None else (clusters, labels)
    z, *columns = read_columns(table, names)
    t = encode_labels(columns[0])[0] if columns else np.full(len(z), -1)
    if columns and not (t >= 0).any():
        raise UserError(f"{table}: the column {labels} of --labels holds no label; leave --labels out")
    print_values(cluster_metrics(encode_values(z), t), as_json=as_json)
