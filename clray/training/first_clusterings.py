"""The first clusterings of several runs that have the same embeddings, computed together and kept in a file.

Knows what a run asks for and what it is given; when that is so is `recluster`'s matter.
"""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from clray.config import Config
from clray.data.transfer import view
from clray.kmeans.lloyd import Clustering

FIRST_FILE = "first_clusterings.pt"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """What a run asks of its first clustering.

    Attributes:
        counts: K of each granularity.
        is_nested: whether the centroids of the first granularity are clustered into the next.
        kmeans: the section of the config, as JSON, and `recluster.mode`, which decides where on a GPU it is computed.
    """

    counts: tuple[int, ...]
    is_nested: bool
    kmeans: str

    @classmethod
    def of(cls, config: Config) -> "Wanted":
        nested = config.clusters.granularities is not None and config.objective.name != "pcl"
        return cls(config.clusters.counts, nested, f"{config.kmeans.model_dump_json()} {config.recluster.mode}")


@dataclass(frozen=True)
class FirstClustering:
    """A run's first clustering, computed before it.

    Attributes:
        vectors: what was clustered, float32 [N, dim], in dataset order.
        clusterings: of each granularity, with ids in dataset order.
        seconds: this clustering's share of the time of all that were computed with it.
        stability: adjusted Rand index of the first granularity and a clustering of the same vectors from another seed;
            None where there are labels, which tell more, or no prescreen, which asks.
    """

    vectors: Float[np.ndarray, "n dim"]
    clusterings: tuple[Clustering, ...]
    seconds: float
    stability: float | None = None

    def of_worker(self, own: np.ndarray) -> "tuple[np.ndarray, list[Clustering]]":
        """Vectors and clusterings of the images of one worker, by their dataset indices."""
        parts = [
            Clustering(each.centroids, each.ids[own], each.inertia, each.history, each.network_bytes)
            for each in self.clusterings
        ]
        return self.vectors[own], parts


FirstClusterings = dict[Wanted, FirstClustering]


def as_tree(found: FirstClusterings) -> dict[str, Any]:
    """Plain values and tensors for reading alone, which are read without running code."""
    vectors = next(iter(found.values())).vectors if found else np.empty((0, 0), np.float32)
    return {
        "vectors": view(vectors),
        "entries": [
            {
                "counts": list(wanted.counts),
                "is_nested": wanted.is_nested,
                "kmeans": wanted.kmeans,
                "seconds": each.seconds,
                "stability": each.stability,
                "clusterings": [_plain(clustering) for clustering in each.clusterings],
            }
            for wanted, each in found.items()
        ],
    }


def write_first(folder: Path, tree: dict[str, Any]) -> None:
    """Keep what `as_tree` gives in a folder; raises OSError where that cannot be."""
    partial = folder / f"{FIRST_FILE}.partial"
    with partial.open("wb") as file:
        torch.save(tree, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / FIRST_FILE)


def read_first(folder: Path) -> FirstClusterings:
    """What a folder keeps; nothing, with a warning, where the file is lost or damaged."""
    path = folder / FIRST_FILE
    try:
        # Mapped, as of all that the file holds a run takes its own.
        tree = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return _checked(tree)
    except Exception as error:  # damaged bytes make the reader raise nearly anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning("%s: not the clusterings of a trunk (%s); each run clusters for itself", path, reason)
        return {}


def _checked(tree: Any) -> FirstClusterings:
    vectors = tree["vectors"].numpy()
    if vectors.ndim != 2 or vectors.dtype != np.float32:
        raise ValueError(f"vectors of {vectors.dtype} {list(vectors.shape)}")
    found: FirstClusterings = {}
    for entry in tree["entries"]:
        wanted = Wanted(tuple(map(int, entry["counts"])), bool(entry["is_nested"]), str(entry["kmeans"]))
        clusterings = tuple(_clustering(each, vectors) for each in entry["clusterings"])
        if tuple(each.num_clusters for each in clusterings) != wanted.counts:
            raise ValueError(f"clusterings for {list(wanted.counts)} have other numbers of clusters")
        stability = entry["stability"]
        found[wanted] = FirstClustering(
            vectors, clusterings, float(entry["seconds"]), None if stability is None else float(stability)
        )
    return found


def _plain(each: Clustering) -> dict[str, Any]:
    return {
        "centroids": view(each.centroids),
        "ids": view(each.ids),
        "inertia": each.inertia,
        "history": list(each.history),
        "network_bytes": each.network_bytes,
    }


def _clustering(tree: dict[str, Any], vectors: np.ndarray) -> Clustering:
    centroids, ids = tree["centroids"].numpy(), tree["ids"].numpy()
    if centroids.ndim != 2 or ids.shape != (len(vectors),) or ids.dtype != np.int32:
        raise ValueError(f"ids of {ids.dtype} {list(ids.shape)} for {len(vectors)} vectors")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < len(centroids):
        raise ValueError(f"ids from {ids.min()} to {ids.max()} of {len(centroids)} clusters")
    history = [float(value) for value in tree["history"]]
    return Clustering(centroids, ids, float(tree["inertia"]), history, int(tree["network_bytes"]))
