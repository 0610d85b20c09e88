"""clray cluster and clray assign: the k-means engine on its own; parsing and printing only."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clray.cli.options import AsJson, Verbose
from clray.cli.terminal import err, print_json, print_line, print_values, progress, status
from clray.config.sections import TrackingConfig
from clray.errors import UserError
from clray.kmeans.options import AssignMethod, InitMethod, KMeansOptions

if TYPE_CHECKING:
    import numpy as np

    from clray.kmeans.progress import Progress

FLAGS = {"num_shards": "--shards", "assign_method": "--assign", "num_clusters": "--num-clusters", "column": "--column",
         "initial": "--initial", "output": "--output", "resume": "--resume"}  # fmt: skip
"""How the library's arguments are called here, where it is not `--` and their name with dashes."""


def _setting(name: str, **more: Any) -> Any:
    """The option of a field of `KMeansOptions`, with its documentation."""
    text = KMeansOptions.model_fields[name].description or ""
    return typer.Option(_flag(name), help=" ".join(text.split()), **more)


def _flag(name: str) -> str:
    return FLAGS.get(name, "--" + name.replace("_", "-"))


def _default(name: str) -> Any:
    return KMeansOptions.model_fields[name].default


VectorsPath = Annotated[Path, typer.Argument(metavar="VECTORS", help=".npy, .parquet, or a folder of either.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="A new folder for the result.")]
Column = Annotated[str | None, typer.Option(help="Parquet column of the vectors.")]
Shards = Annotated[int, _setting("num_shards")]
Memory = Annotated[str | None, _setting("memory_per_shard", metavar="SIZE")]
Cpus = Annotated[float, _setting("cpus_per_shard")]
Gpus = Annotated[float, _setting("gpus_per_shard")]
Assign = Annotated[AssignMethod, _setting("assign_method")]
DropNonfinite = Annotated[bool, _setting("drop_nonfinite")]
Local = Annotated[bool, typer.Option("--local", help="In this process, without Ray.")]
Table = Annotated[bool, typer.Option("--table", help="Also write assignments.parquet, with file and row.")]


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
    num_shards: Shards = _default("num_shards"),
    memory_per_shard: Memory = None,
    cpus_per_shard: Cpus = _default("cpus_per_shard"),
    gpus_per_shard: Gpus = _default("gpus_per_shard"),
    local: Local = False,
    num_iterations: Annotated[int, _setting("num_iterations")] = _default("num_iterations"),
    num_redos: Annotated[int, _setting("num_redos")] = _default("num_redos"),
    tolerance: Annotated[float, _setting("tolerance")] = _default("tolerance"),
    init: Annotated[InitMethod, _setting("init")] = _default("init"),
    initial: Annotated[
        Path | None, typer.Option(metavar="CENTROIDS.npy", help="Centroids to start from (warm start).")
    ] = None,
    assign_method: Assign = _default("assign_method"),
    spherical: Annotated[bool, _setting("spherical")] = False,
    balanced: Annotated[bool, _setting("balanced")] = False,
    drop_nonfinite: DropNonfinite = False,
    table: Table = False,
    seed: Annotated[int, _setting("seed")] = _default("seed"),
    resume: Annotated[bool, typer.Option("--resume", help="Continue the clustering in --output.")] = False,
    tracking_uri: Annotated[str | None, typer.Option(help="Also record the clustering in this MLflow store.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Distributed FAISS k-means on its own: centroids.npy, assignments.npy and clustering.json."""
    wanted = _parse_counts(num_clusters, levels)
    if tracking_uri is not None:
        from clray.track.mlflow import check_server

        check_server(tracking_uri)
    from clray.kmeans.engine import cluster as run

    with _flags_named(levels is not None), progress("iteration", num_iterations, quiet=as_json) as show:
        try:
            result = run(
                vectors,
                wanted,
                nested=levels is not None,
                column=column,
                use_ray=not local,
                initial=None if initial is None else _read_centroids(initial),
                output=output,
                resume=resume,
                write_table=table,
                on_iteration=lambda each: show(each.iteration, _describe(each)),
                verbose=verbose,
                num_shards=num_shards,
                memory_per_shard=memory_per_shard,
                cpus_per_shard=cpus_per_shard,
                gpus_per_shard=gpus_per_shard,
                num_iterations=num_iterations,
                num_redos=num_redos,
                tolerance=tolerance,
                init=init,
                assign_method=assign_method,
                spherical=spherical,
                balanced=balanced,
                drop_nonfinite=drop_nonfinite,
                seed=seed,
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
    print_values({"left_out": len(result.nonfinite_rows), "seconds": result.summary["seconds"], "output": output})


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
    num_shards: Shards = _default("num_shards"),
    memory_per_shard: Memory = None,
    cpus_per_shard: Cpus = _default("cpus_per_shard"),
    gpus_per_shard: Gpus = _default("gpus_per_shard"),
    local: Local = False,
    assign_method: Assign = _default("assign_method"),
    drop_nonfinite: DropNonfinite = False,
    table: Table = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """The nearest centroids of a finished clustering for new vectors: assignments.npy and distances.npy (squared)."""
    from clray.kmeans.assign import assign as run

    with _flags_named(), status("assigning", quiet=as_json):
        assigned = run(
            result,
            vectors if encoder is None else _embed(encoder, vectors, layer),
            num_clusters,
            column=column,
            use_ray=not local,
            output=output,
            write_table=table,
            verbose=verbose,
            num_shards=num_shards,
            memory_per_shard=memory_per_shard,
            cpus_per_shard=cpus_per_shard,
            gpus_per_shard=gpus_per_shard,
            assign_method=assign_method,
            drop_nonfinite=drop_nonfinite,
        )
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


@contextmanager
def _flags_named(has_levels: bool = False) -> Iterator[None]:
    """The library speaks of its arguments; here they are options."""
    try:
        yield
    except UserError as error:
        names = {*KMeansOptions.model_fields, *FLAGS} - {"seed", "init", "tolerance", "spherical", "balanced"}
        message = str(error)
        for name in names:
            flag = "--levels" if has_levels and name == "num_clusters" else _flag(name)
            # Words that are also English are arguments where they stand first, or are quoted.
            pattern = rf"(?<![\w/.-]){name}(?![\w/.-])" if "_" in name else rf"^{name}(?=:)|`{name}`"
            message = re.sub(pattern, flag, message, flags=re.MULTILINE)
        raise UserError(message) from error


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
