"""clray statistics: two columns of a table; parsing and printing only."""

from pathlib import Path
from typing import Annotated

import typer

from clray.cli.options import AsJson
from clray.cli.terminal import print_values


def statistics(
    table: Annotated[Path, typer.Argument(metavar="TABLE.csv", help="CSV or Parquet.")],
    clusters: Annotated[str, typer.Option(help="Column of the clusters Z.")],
    labels: Annotated[str, typer.Option(help="Column of the labels T.")],
    as_json: AsJson = False,
) -> None:
    """I(Z;T), H(Z|T) and their kin, in bits, for two columns of a table."""
    from clray.clusters.statistics import cluster_statistics
    from clray.data.readers.columns import encode_values
    from clray.data.readers.tables import read_columns

    z, t = (encode_values(column) for column in read_columns(table, (clusters, labels)))
    print_values(cluster_statistics(z, t).as_metrics(), as_json=as_json)
