"""clray look and clray neighbours: the clusters of a run as a page or folders, and the images like an image."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from clray.cli.flags import flags_named
from clray.cli.options import AsJson, read_settings
from clray.cli.terminal import compact_table, out, print_json, print_line, print_values, status
from clray.errors import UserError
from clray.report.text import visible

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run or trial; of a sweep, its best trial.")]
Moved = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Where the data are now, such as data.train_path=PATH."),
]


def look(
    run: RunFolder,
    other: Annotated[
        Path | None, typer.Argument(metavar="[OTHER]", help="A second run on the same images, beside the first.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page; by default RUN/clusters.html.")
    ] = None,
    method: Annotated[
        str, typer.Option("--map", help="pca, umap or tsne; auto takes what is installed of the last two.")
    ] = "auto",
    most_images: Annotated[int, typer.Option("--images", min=2, help="Embed at most so many images.")] = 100_000,
    most_clusters: Annotated[int, typer.Option("--clusters", min=1, help="Show at most so many, the largest.")] = 1000,
    copy_to: Annotated[
        Path | None, typer.Option(help="Also a new folder of the images of each cluster: links to files, else copies.")
    ] = None,
    as_copies: Annotated[bool, typer.Option("--copies", help="With --copy-to: copy files too, and link none.")] = False,
    assignments: Moved = None,
    as_json: AsJson = False,
) -> None:
    """See the clusters of a run: a page of images, classes and attributes that opens without a network."""
    from clray.report.look.looking import look as write_page

    page = output or run / "clusters.html"
    with status("looking at the clusters", quiet=as_json), flags_named({"method": "--map", "copy_to": "--copy-to"}):
        written = write_page(
            run, page, other=other, overrides=read_settings(assignments), method=method,
            most_images=most_images, most_clusters=most_clusters, copy_to=copy_to, as_copies=as_copies,
        )  # fmt: skip
    places = {"page": str(written.resolve())} | ({} if copy_to is None else {"folder": str(copy_to.resolve())})
    print_values(places, as_json=as_json)


def neighbours(
    run: RunFolder,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="A file, or the name or row of a training image.")],
    count: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 12,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Also a page of them.")] = None,
    assignments: Moved = None,
    as_json: AsJson = False,
) -> None:
    """The training images that a run's encoder finds most like an image, nearest first."""
    from clray.report.look.neighbours import neighbours as find

    if output is not None and not output.parent.is_dir():
        raise UserError(f"{output}: no such folder: {output.parent}")
    overrides = read_settings(assignments)
    with status("comparing", quiet=as_json):
        found = find(run, image, count, overrides=overrides, path=output)
    if as_json:
        print_json([asdict(each) for each in found])
        return
    table = compact_table(("distance", "right"), ("cluster", "right"), ("class", "left"), ("image", "left"))
    table.columns[-1].overflow = "fold"
    for each in found:
        label = "" if each.label is None else visible(each.label)
        table.add_row(f"{each.distance:.3f}", str(each.cluster), Text(label), Text(visible(each.name)))
    out.print(table)
    if output is not None:
        print_line(f"page: {output.resolve()}")
