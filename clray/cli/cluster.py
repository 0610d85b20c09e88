"""clray cluster: the k-means engine on its own; parsing and printing only."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clray.cli.terminal import err, print_json, print_line, print_values, progress
from clray.config.sections import TrackingConfig
from clray.errors import UserError

if TYPE_CHECKING:
    from clray.kmeans.progress import Progress

Output = Annotated[Path, typer.Option("--output", "-o", help="A new folder for the result.")]
NumClusters = Annotated[str | None, typer.Option("--num-clusters", "-k", help="K, or several: 50,500,5000.")]
Levels = Annotated[
    str | None, typer.Option(help="Nested clusters instead, finest first: 5000,500,50 clusters the centroids again.")
]


def cluster(
    vectors: Annotated[Path, typer.Argument(metavar="VECTORS", help=".npy, .parquet, or a folder of either.")],
    output: Output,
    num_clusters: NumClusters = None,
    levels: Levels = None,
    column: Annotated[str | None, typer.Option(help="Parquet column of the vectors.")] = None,
    shards: Annotated[int, typer.Option(min=1, help="Ray actors that search one slice each.")] = 2,
    memory_per_shard: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Bound on a shard's memory, such as 300MB.")
    ] = None,
    cpus_per_shard: Annotated[float, typer.Option(min=0.0)] = 1.0,
    gpus_per_shard: Annotated[float, typer.Option(min=0.0)] = 0.0,
    local: Annotated[bool, typer.Option("--local", help="In this process, without Ray.")] = False,
    num_iterations: Annotated[int, typer.Option(min=1)] = 20,
    num_redos: Annotated[int, typer.Option(min=1, help="Starts, of which the best is kept.")] = 1,
    tolerance: Annotated[float, typer.Option(min=0.0, help="Relative fall of the inertia at which to stop.")] = 1e-6,
    init: Annotated[Literal["random", "kmeans++", "afk-mc2"], typer.Option(help="How to start.")] = "random",
    initial: Annotated[
        Path | None, typer.Option(metavar="CENTROIDS.npy", help="Centroids to start from (warm start).")
    ] = None,
    assign: Annotated[
        Literal["exact", "ivf", "hnsw"], typer.Option(help="ivf and hnsw approximate, for very large K.")
    ] = "exact",
    spherical: Annotated[bool, typer.Option(help="Keep the centroids at unit length.")] = False,
    balanced: Annotated[bool, typer.Option(help="Assign vectors to clusters of more even size.")] = False,
    drop_nonfinite: Annotated[bool, typer.Option(help="Leave out vectors with NaN or infinity.")] = False,
    table: Annotated[bool, typer.Option(help="Also write assignments.parquet, with file and row.")] = False,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the clustering in --output.")] = False,
    tracking_uri: Annotated[str | None, typer.Option(help="Also record the clustering in this MLflow store.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the messages of Ray.")] = False,
) -> None:
    """Distributed FAISS k-means on its own: centroids.npy, assignments.npy and clustering.json."""
    wanted = _parse_counts(num_clusters, levels)
    if tracking_uri is not None:
        from clray.track.mlflow import check_server

        check_server(tracking_uri)
    from clray.kmeans.engine import cluster as run

    with progress("iteration", num_iterations, quiet=as_json) as show:
        try:
            result = run(
                vectors,
                wanted,
                nested=levels is not None,
                column=column,
                balanced=balanced,
                num_shards=shards,
                cpus_per_shard=cpus_per_shard,
                gpus_per_shard=gpus_per_shard,
                memory_per_shard=memory_per_shard,
                use_ray=not local,
                num_iterations=num_iterations,
                num_redos=num_redos,
                init=init,
                initial=None if initial is None else _read_centroids(initial),
                assign_method=assign,
                spherical=spherical,
                tolerance=tolerance,
                seed=seed,
                drop_nonfinite=drop_nonfinite,
                output=output,
                resume=resume,
                write_table=table,
                on_iteration=lambda each: show(each.iteration, _describe(each)),
                verbose=verbose,
            )
        except KeyboardInterrupt:
            print_line(f"Interrupted. Resume with the same command and --resume; the state is in {output}", err)
            raise
    if tracking_uri is not None:
        from clray.track.mlflow import open_store

        store = open_store(TrackingConfig(uri=tracking_uri), output)
        store.record_clustering(output.name, result.summary, [output / "clustering.json"])
    if as_json:
        print_json(result.summary)
        return
    for each in result.summary["granularities"]:
        print_values({key: value for key, value in each.items() if key != "inertia_history"})
    print_values({"seconds": result.summary["seconds"], "output": output})


def _parse_counts(num_clusters: str | None, levels: str | None) -> list[int]:
    if (num_clusters is None) == (levels is None):
        raise UserError("give either --num-clusters (-k) or --levels")
    name, text = ("--num-clusters", num_clusters) if levels is None else ("--levels", levels)
    try:
        return [int(part) for part in str(text).split(",")]
    except ValueError:
        raise UserError(f"{name}: expected a number such as 50, or several such as 50,500; got {text!r}") from None


def _read_centroids(path: Path) -> Any:
    import numpy as np

    from clray.kmeans.vectors.files import open_npy

    file = open_npy(path)
    return file.take(np.arange(file.num_rows))


def _describe(progress: "Progress") -> str:
    parts = [
        f"K={k}: inertia {inertia:.6g}, imbalance {progress.imbalance[k]:.2f}"
        for k, inertia in progress.inertia.items()
    ]
    return "; ".join(parts)
