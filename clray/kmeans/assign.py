"""`clray assign`: the nearest centroids of a finished clustering for new vectors, out of core as the clustering was."""

import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clray.clusters.saved import open_clustering
from clray.errors import UserError
from clray.folder_lock import folder_locked
from clray.kmeans.lloyd import Clustering
from clray.kmeans.memory import bytes_per_shard
from clray.kmeans.options import make_options, shown, whole_number
from clray.kmeans.origin import choose_origin, take_off
from clray.kmeans.output import check_disk, check_output, spread, write_clusterings
from clray.kmeans.shards.opening import open_shards
from clray.kmeans.vectors.source import read_vectors, to_centroids


@dataclass(frozen=True)
class Assigned:
    """New vectors under one granularity.

    Attributes:
        centroids: float32 or float64 [K, dim].
        ids: nearest centroid of each vector, int32 [N]; -1 for a vector that was left out.
        squared_distances: to that centroid, float32 [N]; NaN for a vector that was left out.
    """

    centroids: np.ndarray
    ids: np.ndarray
    squared_distances: np.ndarray

    @property
    def inertia(self) -> float:
        """Sum of the squared distances."""
        return float(np.nansum(self.squared_distances, dtype=np.float64))


def assign(
    result: Any,
    vectors: Any,
    num_clusters: int | None = None,
    *,
    column: str | None = None,
    use_ray: bool = True,
    output: Path | str | None = None,
    write_table: bool = False,
    verbose: bool = False,
    **settings: Any,
) -> list[Assigned]:
    """Find the nearest centroids of a clustering for vectors that it has not seen.

    Example:
        (found,) = clray.assign("clusters/", "new.npy", use_ray=False)

    Args:
        result: output folder of `clray.cluster`, or centroids [K, dim].
        vectors: array or tensor [N, dim]; or the path of a `.npy` or Parquet file, or of a folder of them.
        num_clusters: the granularity; by default each that the folder holds.
        column, use_ray, write_table, verbose: as for `clray.cluster`.
        output: new folder for ids, squared distances and centroids; itself a clustering, of the new vectors.
        settings: fields of `clray.kmeans.options.KMeansOptions` on shards, memory and left-out vectors.

    Raises:
        UserError: no clustering or a damaged one, vectors that cannot be used or have another dimension, an output in
            use.
    """
    options = make_options(**settings)
    sets = _centroids(result, num_clusters)
    opened = read_vectors(vectors, column)
    dim = sets[0].shape[1]
    if opened.dim != dim:
        raise UserError(f"{opened.source}: vectors of {opened.dim} dimensions; the centroids have {dim}")
    counts = [len(each) for each in sets]
    memory_bytes = bytes_per_shard(options.memory_per_shard, options.num_shards if use_ray else 1)
    folder = None if output is None else Path(output)
    with nullcontext() if folder is None else folder_locked(folder):
        if folder is not None:
            check_output(folder, resume=False, fingerprint={})
            check_disk(folder, len(opened), counts, 0, dim, bytes_per_vector=8)
        started = time.monotonic()
        with open_shards(opened, counts, options, memory_bytes, use_ray=use_ray, verbose=verbose) as (shards, survey):
            origin = choose_origin(survey, opened.dtype)
            measured = shards.about(origin).measure([take_off(each, origin) for each in sets])
        found = [
            Assigned(each, spread(ids, survey.bad_rows, -1), spread(distances, survey.bad_rows, np.nan))
            for each, (ids, distances) in zip(sets, measured, strict=True)
        ]
        if folder is not None:
            about = {
                "assigned_from": str(result) if isinstance(result, str | Path) else "centroids in memory",
                "vectors": opened.source,
                "seconds": round(time.monotonic() - started, 3),
                "num_nonfinite": len(survey.bad_rows),
            }
            write_clusterings(
                folder,
                [Clustering(each.centroids, each.ids, each.inertia) for each in found],
                about,
                distances=[each.squared_distances for each in found],
                table_of=opened if write_table else None,
            )
    return found


def _centroids(result: Any, num_clusters: int | None) -> list[np.ndarray]:
    try:
        wanted = None if num_clusters is None else whole_number(num_clusters)
    except ValueError:
        raise UserError(f"num_clusters: expected a whole number; got {shown(num_clusters)}") from None
    if not isinstance(result, str | Path):
        centroids = to_centroids(result, "centroids")
        if wanted not in (None, len(centroids)):
            raise UserError(f"num_clusters: there are {len(centroids)} centroids; got {wanted}")
        return [centroids]
    saved = open_clustering(Path(result))
    sets = [saved.centroids(k) for k in (saved.num_clusters if wanted is None else (wanted,))]
    if len({each.shape[1] for each in sets}) > 1:
        raise UserError(f"{result}: its granularities have centroids of different dimensions; choose one")
    return sets
