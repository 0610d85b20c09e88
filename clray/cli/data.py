"""clray data check | build and clray clusters build: images as they are, as Parquet, and as clusters; printing only."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml
from rich.text import Text

from clray.cli.flags import flags_named
from clray.cli.options import AsJson, DataAssignments, read_settings
from clray.cli.terminal import (
    compact_table,
    err,
    out,
    print_json,
    print_line,
    print_note,
    print_values,
    progress,
    status,
)
from clray.config.sections import PUBLISHED, ClustersConfig, DataConfig
from clray.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from clray.clusters.granularity import Granularity
    from clray.data.readers.split import PartName

data_app = typer.Typer(help="Look at a data set, or write it as Parquet.", no_args_is_help=True)
clusters_app = typer.Typer(help="Clusters from what is known of the images.", no_args_is_help=True)

DataName = Annotated[
    str, typer.Argument(metavar="DATA", help="A data.name, such as cub200, with --root; or a file or folder.")
]
Root = Annotated[Path | None, typer.Option(help="The folder of the data set (data.train_path).")]
BITS = {
    "H(Z)": "entropy_bits",
    "I(Z;T)": "mutual_information_bits",
    "H(Z|T)": "conditional_entropy_bits",
    "H(T|Z)": "label_conditional_entropy_bits",
}
FLAGS = {
    "counts": "--top-k",
    "clusters.attribute_columns": "--attributes",
    "clusters.attribute_order": "--order",
}
Threads = Annotated[int, typer.Option(min=1, help="Threads that decode images.")]


def describe_data(data: str, root: Path | None, assignments: list[str] | None) -> DataConfig:
    """The data section that the arguments mean.

    Raises:
        UserError: neither a data set's name nor a path, or a key outside `data.`.
    """
    from clray.config import parse_config, with_overrides
    from clray.data.check import require_known
    from clray.data.load import check_files, kind_of
    from clray.data.readers.places import is_pattern
    from clray.data.remote.address import Address

    path = Path(data)
    if (path.exists() or is_pattern(path) or Address.parse(data) is not None) and root is None:
        tree = {"data.name": kind_of(path), "data.train_path": data}
    else:
        require_known(data)
        tree = {"data.name": data} | ({} if root is None else {"data.train_path": str(root)})
        if root is None and data in PUBLISHED:
            raise UserError(f"--root is required for {data}: the folder that holds its files")
    for key, value in read_settings(assignments).items():
        if not key.startswith("data."):
            raise UserError(f"--set {key}: only data.* keys are used here")
        tree[key] = value
    config = parse_config(with_overrides({}, tree)).data
    check_files(config)
    return config


@data_app.command()
def check(
    data: DataName,
    root: Root = None,
    assignments: DataAssignments = None,
    threads: Threads = 4,
    as_json: AsJson = False,
) -> None:
    """Count what is there beside what was published, decode every image, and say what is missing."""
    config = describe_data(data, root, assignments)
    from clray.data.check import check_data

    with progress("images", None, quiet=as_json) as show:
        report = check_data(
            config,
            num_threads=threads,
            on_image=lambda done, total: show(done / total, f"{done}/{total}"),
        )
    if as_json:
        print_json(asdict(report))
    else:
        table = compact_table(("", "left"), ("found", "right"), ("published", "right"), ("", "left"))
        for each in report.findings:
            published = "" if each.published is None else f"{each.published:,}"
            table.add_row(each.name, f"{each.found:,}", published, "" if each.is_right else Text("differs", "red"))
        out.print(table)
        for problem in report.problems:
            print_line(f"bad image: {problem}")
        if report.num_bad > len(report.problems):
            print_line(f"and {report.num_bad - len(report.problems)} more bad images")
        for note in report.notes:
            print_note(note)
        if report.obtained is not None:
            print_line(f"obtained from: {report.obtained}")
    if not report.is_whole:
        raise typer.Exit(1)


@data_app.command("build")
def build_data(
    data: DataName,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder, or that of a build to continue.")],
    root: Root = None,
    assignments: DataAssignments = None,
    threads: Threads = 4,
    as_json: AsJson = False,
) -> None:
    """Write a data set as Parquet: images, label and attributes, in train/, test/, validation/ and labelled/."""
    config = describe_data(data, root, assignments)
    from clray.data.build import build_parquet
    from clray.data.load import NAMES

    with progress("images", None, quiet=as_json) as show:
        built = build_parquet(
            config,
            output,
            num_threads=threads,
            on_image=lambda done, total: show(done / total, f"{done}/{total}"),
        )
    if as_json:
        print_json({key: str(value) if isinstance(value, Path) else value for key, value in asdict(built).items()})
        return
    counts: "dict[PartName, int]" = {
        "train": built.num_train,
        "labelled": built.num_labelled,
        "validation": built.num_validation,
        "test": built.num_test,
    }
    counts = {part: count for part, count in counts.items() if count}
    print_values({**{f"{NAMES[part]} images": count for part, count in counts.items()}, "left out": built.num_bad})
    if built.num_bad:
        print_line(f"reasons: {output / 'bad_images.csv'}")
    chosen: dict[str, object] = {"data.name": "parquet", **{f"data.{part}_path": output / part for part in counts}}
    if config.further_columns:
        chosen["data.label_columns"] = ["label", *config.further_columns]
    print_line(f"train on it: {_as_sets(chosen)}")


@clusters_app.command("build")
def build_clusters(
    data: DataName,
    output: Annotated[Path, typer.Option("--output", "-o", help="A new folder for the clusters.")],
    root: Root = None,
    source: Annotated[str, typer.Option(help="attributes, or hierarchy.")] = "attributes",
    top_k: Annotated[
        str | None,
        typer.Option("--top-k", help="Numbers of attributes, as in 3,5,7,10; by default 3, or all of fewer."),
    ] = None,
    candidates: Annotated[
        str | None, typer.Option("--attributes", help="The candidates, as in colour,shape; by default all but ids.")
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="The attributes in this order, in place of that of falling entropy.")
    ] = None,
    tree: Annotated[Path | None, typer.Option(help="Of the hierarchy: YAML, parent-child lines or data.noun.")] = None,
    levels: Annotated[str, typer.Option(help="Levels of the hierarchy, as in 1,2,3.")] = "1",
    assignments: DataAssignments = None,
    as_json: AsJson = False,
) -> None:
    """Clusters of the training samples at several granularities, with what they tell about the labels, in bits."""
    config = describe_data(data, root, assignments)
    if source not in ("attributes", "hierarchy"):
        raise UserError(f"--source must be attributes or hierarchy; got {source!r}")
    if source == "hierarchy" and tree is None:
        raise UserError("--tree is required for --source hierarchy")
    counts = None if top_k is None else _numbers("--top-k", top_k)
    depths = _numbers("--levels", levels)
    with status("reading", quiet=as_json), flags_named(FLAGS):
        chosen = _chosen_attributes(candidates, order)
        from clray.clusters.granularity import build_attribute_clusters, build_hierarchy_clusters, write_clusters
        from clray.data.load import load_descriptions
        from clray.data.validation import with_validation

        known = with_validation(load_descriptions(config), config)
        train, names = known.train, known.names[None]
        if tree is None or source == "attributes":
            found = build_attribute_clusters(
                train.columns, train.labels, counts, candidates=chosen.attribute_columns, order=chosen.attribute_order
            )
        else:
            found = build_hierarchy_clusters(train.labels, names, tree, depths)
        labels = [names[code] if code >= 0 else None for code in train.labels]
        write_clusters(output, found, labels, _data_section(config))
    for note in (*known.notes, *([] if source == "hierarchy" else _notes(chosen, train.columns))):
        print_note(note)
    if as_json:
        print_json([{"number": each.number, "attributes": each.attributes, **each.metrics} for each in found])
        return
    _print_clusters(found, "attributes" if source == "attributes" else "level")
    _print_ways(config, output, found)


def _print_clusters(found: "list[Granularity]", heading: str) -> None:
    """A row for each granularity; of attributes also their order."""
    shown = {symbol: name for symbol, name in BITS.items() if f"clusters/{name}" in found[0].metrics}
    table = compact_table((heading, "right"), ("clusters", "right"), *((symbol, "right") for symbol in shown))
    for each in found:
        bits = [f"{each.metrics[f'clusters/{name}']:.4f}" for name in shown.values()]
        table.add_row(str(each.number), str(each.assignment.num_clusters), *bits)
    out.print(table)
    for rank, (name, entropy) in enumerate(found[-1].attributes, start=1):
        print_line(f"{rank:3}. {name}  {entropy:.4f} bits")


def _chosen_attributes(candidates: str | None, order: str | None) -> ClustersConfig:
    """The options as a config has them; how many attributes form the clusters is another matter."""
    from clray.config import parse_config

    given = {"attribute_columns": candidates, "attribute_order": order}
    lists = {key: [name.strip() for name in text.split(",")] for key, text in given.items() if text is not None}
    return parse_config({"clusters": {"source": "attributes", "num_attributes": 1, **lists}}).clusters


def _notes(chosen: ClustersConfig, columns: "dict[str, np.ndarray]") -> list[str]:
    from clray.cli.flags import with_flags
    from clray.clusters.known import note_on_ids

    note = note_on_ids(chosen, columns)
    return [] if note is None else [with_flags(note, FLAGS)]


def _data_section(config: DataConfig) -> dict[str, Any]:
    """The settings that are not the defaults, with paths that hold wherever a run starts."""
    from clray.data.remote.address import Address
    from clray.data.remote.local import PATHS

    section = config.model_dump(mode="json", exclude_defaults=True)
    here = [key for key in PATHS if section.get(key) is not None and Address.parse(section[key]) is None]
    return section | {key: str(Path(section[key]).absolute()) for key in here}


def _print_ways(config: DataConfig, output: Path, found: "list[Granularity]") -> None:
    """How a run trains on the clusters."""
    from clray.clusters.granularity import CONFIG_FILE, trainable_counts

    counts = trainable_counts(found)
    if not counts:
        print_note("all images are in one cluster: there is nothing to train on")
        return
    place = shlex.quote(str(output / CONFIG_FILE))
    print_line(f"train on it: clray train {place}", err)
    if counts[1:]:
        print_line(f"or on each of the {len(counts)} granularities: clray sweep {place}", err)
    chosen = {f"data.{key}": value for key, value in config.model_dump(exclude_defaults=True).items()}
    chosen |= {"clusters.source": "clustering", "clusters.path": output, "clusters.num_clusters": counts[0]}
    print_line(f"or with a config of your own: {_as_sets(chosen)}", err)


def _as_sets(settings: Mapping[str, object]) -> str:
    """Settings as options of `clray train`, ready for a shell."""
    return shlex.join(part for key, value in settings.items() for part in ("--set", f"{key}={_as_yaml(value)}"))


def _as_yaml(value: object) -> str:
    """The value as `--set` reads it: a path such as `a: b` stands in quotes."""
    if not isinstance(value, str | Path):
        return json.dumps(value)
    text = str(value)
    try:
        is_plain = yaml.safe_load(text) == text
    except yaml.YAMLError:
        is_plain = False
    return text if is_plain else json.dumps(text)


def _numbers(option: str, text: str) -> list[int]:
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option}: expected numbers such as 3,5,7; got {text!r}") from None
    return sorted(set(numbers))
