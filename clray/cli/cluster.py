"""clray cluster and clray assign: the k-means engine on its own; parsing and printing only."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clray.cli.flags import flags_named
from clray.cli.kmeans_options import flags_of_settings, takes
from clray.cli.options import AsJson, Verbose
from clray.cli.terminal import err, print_json, print_line, print_values, progress, status
from clray.config.sections import TrackingConfig
from clray.errors import UserError, WaitedTooLong

if TYPE_CHECKING:
    import numpy as np

    from clray.kmeans.assign import Assigned
    from clray.kmeans.engine import ClusterResult
    from clray.kmeans.progress import Progress

ON_SHARDS = ("num_shards", "memory_per_shard", "cpus_per_shard", "gpus_per_shard", "backend", "assign_method",
             "drop_nonfinite", "timeout_seconds")  # fmt: skip
"""The settings that both commands take."""
ITERATIONS = ("num_iterations", "num_redos", "tolerance", "init", "oversampling", "sample_fraction",
              "num_refresh_iterations", "resample_steps", "resample_points", "spherical", "balanced",
              "seed")  # fmt: skip
"""Those of k-means alone."""
ARGUMENTS = {"num_clusters": "--num-clusters", "column": "--column", "initial": "--initial", "output": "--output",
             "resume": "--resume"}  # fmt: skip
VectorsPath = Annotated[Path, typer.Argument(metavar="VECTORS", help=".npy, .parquet, or a folder of either.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="A new folder for the result.")]
Column = Annotated[str | None, typer.Option(help="Parquet column of the vectors.")]
Local = Annotated[bool, typer.Option("--local", help="In this process, without Ray.")]
Table = Annotated[bool, typer.Option("--table", help="Also write assignments.parquet, with file and row.")]


@takes(*ON_SHARDS, *ITERATIONS)
def cluster(
    vectors: VectorsPath,
    output: Output,
    num_clusters: Annotated[
        str | None, typer.Option("--num-clusters", "-k", help="K, or several: 50,500,5000.")
    ] = None,
    levels: Annotated[
        str | None,
        typer.Option(help="Nested clusters instead, finest first: 5000,500,50 clusters the centroids again."),
    ] = None,
    column: Column = None,
    local: Local = False,
    initial: Annotated[
        Path | None, typer.Option(metavar="CENTROIDS.npy", help="Centroids to start from (warm start).")
    ] = None,
    table: Table = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the clustering in --output.")] = False,
    tracking_uri: Annotated[str | None, typer.Option(help="Also record the clustering in this MLflow store.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
    **settings: Any,
) -> None:
    """Distributed FAISS k-means on its own: centroids.npy, assignments.npy and clustering.json."""
    wanted = _parse_counts(num_clusters, levels)
    if tracking_uri is not None:
        from clray.track.mlflow import check_server

        check_server(tracking_uri)
    from clray.kmeans.output import STATE_FILE

    with _arguments_named(levels is not None), resumable(output, STATE_FILE):
        result = _run(
            vectors, wanted, initial, settings, as_json=as_json, nested=levels is not None, column=column,
            use_ray=not local, output=output, resume=resume, write_table=table, verbose=verbose,
        )  # fmt: skip
    if tracking_uri is not None:
        _record(result, output, tracking_uri)
    _print_result(result, output, as_json=as_json)


def _run(
    vectors: Path, wanted: list[int], initial: Path | None, settings: dict[str, Any], *, as_json: bool, **arguments: Any
) -> "ClusterResult":
    """Cluster, with a progress bar."""
    from clray.kmeans.engine import cluster as run

    centroids = None if initial is None else _read_centroids(initial)
    most = settings["num_iterations" if settings["sample_fraction"] == 1 else "num_refresh_iterations"]
    with progress("iteration", most, quiet=as_json) as show:
        return run(
            vectors, wanted, initial=centroids, on_iteration=lambda each: show(each.iteration, _describe(each)),
            **arguments, **settings,
        )  # fmt: skip


@contextmanager
def resumable(output: Path, state_file: str) -> Iterator[None]:
    """Say after Ctrl-C, or a wait that was too long, how to resume, where the work came as far as its first state."""
    try:
        yield
    except (KeyboardInterrupt, WaitedTooLong) as ended:
        if (output / state_file).exists():
            print_line(f"Interrupted. Resume with the same command and --resume; the state is in {output}", err)
        elif isinstance(ended, KeyboardInterrupt):
            print_line("Interrupted before there was anything to resume. Start anew with the same command", err)
        raise


def _record(result: "ClusterResult", output: Path, tracking_uri: str) -> None:
    from clray.track.mlflow import open_store

    store = open_store(TrackingConfig(uri=tracking_uri), output)
    store.record_clustering(output.name, result.summary, [output / "clustering.json"])


def _print_result(result: "ClusterResult", output: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(result.summary)
        return
    for each in result.summary["granularities"]:
        print_values({key: value for key, value in each.items() if key != "inertia_history"})
    print_values({"left_out": len(result.nonfinite_rows), "seconds": result.summary["seconds"], "output": output})


@takes(*ON_SHARDS)
def assign(
    result: Annotated[Path, typer.Argument(metavar="RESULT", help="The output folder of clray cluster.")],
    vectors: Annotated[
        Path, typer.Argument(metavar="NEW", help=".npy, .parquet, a folder of either; with --encoder, images.")
    ],
    output: Output,
    encoder: Annotated[
        Path | None, typer.Option(help="A run or checkpoint that embeds NEW: its images, as for clray embed.")
    ] = None,
    layer: Annotated[
        Literal["h", "z"], typer.Option(help="What RESULT was clustered from: the representation or the embedding.")
    ] = "z",
    num_clusters: Annotated[
        int | None, typer.Option("--num-clusters", "-k", help="The granularity; by default each that RESULT holds.")
    ] = None,
    column: Column = None,
    local: Local = False,
    table: Table = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
    **settings: Any,
) -> None:
    """The nearest centroids of a finished clustering for new vectors: assignments.npy and distances.npy (squared)."""
    from clray.kmeans.assign import assign as run

    with _arguments_named(), status("assigning", quiet=as_json):
        assigned = run(
            result,
            vectors if encoder is None else _embed(encoder, vectors, layer),
            num_clusters,
            column=column,
            use_ray=not local,
            output=output,
            write_table=table,
            verbose=verbose,
            **settings,
        )
    _print_assigned(assigned, output, as_json=as_json)


def _print_assigned(assigned: "list[Assigned]", output: Path, *, as_json: bool) -> None:
    found = [
        {
            "num_clusters": len(each.centroids),
            "num_assigned": int((each.ids >= 0).sum()),
            "left_out": int((each.ids < 0).sum()),
            "inertia": each.inertia,
        }
        for each in assigned
    ]
    if as_json:
        print_json({"granularities": found, "output": str(output)})
        return
    for values in found:
        print_values(values)
    print_values({"output": output})


def _arguments_named(has_levels: bool = False) -> AbstractContextManager[None]:
    """The library speaks of its arguments; here they are options."""
    counts = {"num_clusters": "--levels"} if has_levels else {}
    return flags_named({**flags_of_settings(), **ARGUMENTS, **counts})


def _parse_counts(num_clusters: str | None, levels: str | None) -> list[int]:
    if (num_clusters is None) == (levels is None):
        raise UserError("give either --num-clusters (-k) or --levels")
    name, text = ("--num-clusters", num_clusters) if levels is None else ("--levels", levels)
    try:
        return [int(part) for part in str(text).split(",")]
    except ValueError:
        raise UserError(f"{name}: expected a number such as 50, or several such as 50,500; got {text!r}") from None


def _read_centroids(path: Path) -> "np.ndarray":
    import numpy as np

    from clray.data.vector_files import open_npy

    file = open_npy(path)
    return file.take(np.arange(file.num_rows))


def _embed(encoder: Path, images: Path, layer: Literal["h", "z"]) -> "np.ndarray":
    from clray.training.trained import embed, load_encoder

    return embed(load_encoder(encoder), images, layer=layer)


def _describe(progress: "Progress") -> str:
    parts = [
        f"K={k}: inertia {inertia:.6g}, imbalance {progress.imbalance[k]:.2f}"
        for k, inertia in progress.inertia.items()
    ]
    return "; ".join(parts)
