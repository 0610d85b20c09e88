"""What a user of the library calls for a page of a run's clusters."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clray.errors import UserError
from clray.report.look.folders import copy_clusters
from clray.report.look.opened import open_run, run_folder
from clray.report.look.page import MOST_CLUSTERS, MOST_IMAGES, Limits, write_clusters_page
from clray.report.look.places import as_method
from clray.training.trained import HasFolder, place_of


def look(
    run: HasFolder | Path | str,
    path: Path | str,
    *,
    other: HasFolder | Path | str | None = None,
    overrides: Mapping[str, Any] | None = None,
    method: str = "auto",
    most_images: int = MOST_IMAGES,
    most_clusters: int = MOST_CLUSTERS,
    copy_to: Path | str | None = None,
    as_copies: bool = False,
) -> Path:
    """Write a page of a run's clusters: one HTML file that needs no network.

    Example:
        >>> clray.look("outputs/digits", "page.html")

    Args:
        run: folder of a run or trial, or of a sweep for its best trial.
        path: of the page; one that is there is replaced.
        other: a second run on the same images, to show beside it.
        overrides: config values by dotted key, such as `data.train_path` where the data have moved.
        method: of the map: `pca`, `umap`, `tsne`, or `auto` for the first of the others that is installed.
        most_images: that are embedded; of more, these are drawn from all clusters.
        most_clusters: that are shown, the largest first.
        copy_to: also a new folder to fill with one for each cluster: links to its images, or copies of them with
            `as_copies` and where they lie in no files of their own.

    Raises:
        UserError: no such run, data that are not those it was trained on, or a `method` that is not installed.
    """
    way = as_method(method)
    places = [place_of(run)] if other is None else [place_of(run), place_of(other, "other")]
    for place in places:
        run_folder(place)
    if most_images < 2 or most_clusters < 1:
        raise UserError("most_images must be at least 2 and most_clusters at least 1")
    path = Path(path)
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"{path}: no place for a page; name a file in a folder that exists")
    limits = Limits(most_images, most_clusters)
    opened = [open_run(place, overrides) for place in places]
    first, second = opened[0], opened[-1] if other is not None else None
    if copy_to is not None:
        copy_clusters(first, Path(copy_to), as_copies=as_copies)
    return write_clusters_page(first, path, other=second, limits=limits, method=way)
