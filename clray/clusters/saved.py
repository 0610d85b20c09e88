"""Reading a finished clustering, as `clray cluster` and `clray clusters build` write it.

Every file is checked before it is believed: a damaged one is named, whatever is wrong with it.
"""

import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clray.errors import UserError

SUMMARY_FILE = "clustering.json"
ASSIGNMENTS_FILE = "assignments.npy"
CENTROIDS_FILE = "centroids.npy"
PARENTS_FILE = "parents.npy"
DISTANCES_FILE = "distances.npy"


def granularity_folder(folder: Path, num_clusters: int, num_granularities: int) -> Path:
    """Where centroids and assignments of one granularity lie: the folder itself if it is the only one, else k50."""
    return folder / f"k{num_clusters}" if num_granularities > 1 else folder


def checksum(path: Path) -> int:
    """CRC-32 of a file."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(2**20):
            crc = zlib.crc32(block, crc)
    return crc


@dataclass(frozen=True)
class SavedClustering:
    """A finished clustering.

    Attributes:
        num_clusters: K of each granularity, in the order they were asked for.
        num_vectors: how many were clustered; None in folders of `clray clusters build`.
        checksums: CRC-32 of each array file, by its path in the folder; older folders have none.
        is_nested: whether each granularity is a clustering of the centroids of the one before it.
        source: what was clustered, as the user named it; None in folders of `clray clusters build`.
    """

    folder: Path
    num_clusters: tuple[int, ...]
    num_vectors: int | None
    checksums: dict[str, int]
    is_nested: bool = False
    source: str | None = None

    def ids(self, num_clusters: int) -> np.ndarray:
        """The cluster of each vector, int32 [N]; -1 for one that was left out.

        Raises:
            UserError: no such granularity, or a damaged file.
        """
        path = self._place(num_clusters) / ASSIGNMENTS_FILE
        ids = self._load(path)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise _damaged(path, f"expected whole numbers of shape [N]; got {ids.dtype} {list(ids.shape)}")
        if len(ids) != (self.num_vectors or len(ids)):
            raise _damaged(path, f"{SUMMARY_FILE} states {self.num_vectors} vectors, the file has {len(ids)}")
        if len(ids) and not (ids.min() >= -1 and ids.max() < num_clusters):
            raise _damaged(path, f"ids must be in -1..{num_clusters - 1}; got {ids.min()}..{ids.max()}")
        return ids.astype(np.int32)

    def centroids(self, num_clusters: int) -> np.ndarray:
        """Float32 or float64 [K, dim].

        Raises:
            UserError: no such granularity, one without centroids, or a damaged file.
        """
        path = self._place(num_clusters) / CENTROIDS_FILE
        if not path.exists():
            raise UserError(f"{path}: no such file; the clusters of {self.folder} have no centroids")
        centroids = self._load(path)
        if centroids.dtype.kind != "f" or centroids.ndim != 2 or len(centroids) != num_clusters:
            found = f"{centroids.dtype} {list(centroids.shape)}"
            raise _damaged(path, f"expected floats of shape [{num_clusters}, dim]; got {found}")
        if not np.isfinite(centroids).all():
            raise _damaged(path, "the centroids hold NaN or infinity")
        return centroids

    def parents(self, num_clusters: int) -> np.ndarray:
        """Of nested granularities, but the coarsest: the next coarser cluster of each cluster, int32 [K].

        Raises:
            UserError: no such granularity, or a damaged file.
        """
        path = self._place(num_clusters) / PARENTS_FILE
        parents = self._load(path)
        above = self.num_clusters[self.num_clusters.index(num_clusters) + 1]
        if parents.shape != (num_clusters,) or parents.dtype.kind not in "iu":
            raise _damaged(path, f"expected {num_clusters} whole numbers; got {parents.dtype} {list(parents.shape)}")
        if not (parents.min() >= 0 and parents.max() < above):
            raise _damaged(path, f"parents must be in 0..{above - 1}; got {parents.min()}..{parents.max()}")
        return parents.astype(np.int32)

    def _place(self, num_clusters: int) -> Path:
        if num_clusters not in self.num_clusters:
            known = ", ".join(map(str, self.num_clusters))
            raise UserError(f"{self.folder}: holds clusters for K = {known}; got {num_clusters}")
        return granularity_folder(self.folder, num_clusters, len(self.num_clusters))

    def _load(self, path: Path) -> np.ndarray:
        try:
            if not path.is_file():
                raise FileNotFoundError("no such file")
            expected = self.checksums.get(path.relative_to(self.folder).as_posix())
            if expected is not None and checksum(path) != expected:
                raise ValueError(f"its content differs from the checksum in {SUMMARY_FILE}")
            loaded: np.ndarray = np.load(path, allow_pickle=False)
            return loaded
        except Exception as error:  # NumPy parses the header as a Python literal, which fails in many ways
            raise _damaged(path, str(error) or type(error).__name__) from error


def open_clustering(folder: Path) -> SavedClustering:
    """Read the summary of a finished clustering.

    Raises:
        UserError: no finished clustering, or a damaged summary.
    """
    path = folder / SUMMARY_FILE
    if not path.is_file():
        raise UserError(f"{folder}: holds no finished clustering ({SUMMARY_FILE}); make one with `clray cluster`")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        counts = tuple(_whole(each["num_clusters"], 1) for each in tree["granularities"])
        num_vectors = tree.get("num_vectors")
        checksums = {str(name): _whole(value, 0) for name, value in tree.get("checksums", {}).items()}
        if not counts or len(set(counts)) < len(counts):
            raise ValueError("each granularity must occur once")
        source = tree.get("vectors")
        return SavedClustering(
            folder,
            counts,
            None if num_vectors is None else _whole(num_vectors, 1),
            checksums,
            is_nested=tree.get("nested") is True,
            source=source if isinstance(source, str) else None,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"{type(error).__name__}: {error}") from error


def read_assignment(folder: Path, num_clusters: int) -> np.ndarray:
    """The cluster ids of one granularity, int32 [N]; -1 for a vector that was left out.

    Raises:
        UserError: no finished clustering, none of this granularity, or a damaged one.
    """
    return open_clustering(folder).ids(num_clusters)


def _whole(value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        raise ValueError(f"expected a whole number of at least {least}")
    return value


def _damaged(path: Path, reason: str) -> UserError:
    return UserError(f"{path}: damaged ({reason[:300]}); cluster again into another folder")
