"""Two clusterings of the same images side by side: how far they agree, and which clusters fall into which."""

from dataclasses import dataclass

import numpy as np

from clray.clusters.statistics import cluster_statistics
from clray.errors import UserError
from clray.report.look.opened import Finished

NUM_PARTS = 4


@dataclass(frozen=True)
class Versus:
    """How one clustering lies in another.

    Attributes:
        parts: by cluster of the first: clusters of the second that hold its images, with their shares, largest first.
        ari, ami: agreement, adjusted for chance: 1 for the same clusters, 0 at random.
    """

    parts: dict[int, tuple[tuple[int, float], ...]]
    ari: float
    ami: float


def require_same_images(first: Finished, second: Finished) -> None:
    """Raise UserError where two runs were not trained on the same images in the same order."""
    one, other = first.data.train, second.data.train
    keys = [key for key in ("name", "train_path", "labelled_path", "split_seed", "validation_fraction",
                            "max_train_images")
            if getattr(first.config.data, key) != getattr(second.config.data, key)]  # fmt: skip
    are_named = bool(one.names) and bool(other.names)
    if len(one) != len(other) or (list(one.names) != list(other.names) if are_named else bool(keys)):
        where = f" (data.{keys[0]} differs)" if keys else ""
        raise UserError(
            f"{second.folder}: its {len(other):,} images are not the {len(one):,} of {first.folder}{where}; "
            "two runs are compared on the same images"
        )


def compare(first: np.ndarray, second: np.ndarray) -> Versus:
    """Of two assignments of the same images, ids [N] each."""
    width = int(second.max()) + 1
    cells, counts = np.unique(first.astype(np.int64) * width + second, return_counts=True)
    of, to, sizes = cells // width, cells % width, np.bincount(first)
    parts: dict[int, list[tuple[int, float]]] = {}
    for each in np.lexsort((to, -counts, of)):
        into = parts.setdefault(int(of[each]), [])
        if len(into) < NUM_PARTS:
            into.append((int(to[each]), float(counts[each] / sizes[of[each]])))
    statistics = cluster_statistics(first, second)
    found = {number: tuple(into) for number, into in parts.items()}
    return Versus(found, statistics.ari, statistics.ami)
