"""Reading the assignments of a finished clustering, as `clray cluster` writes it."""

import json
from pathlib import Path

import numpy as np

from clray.errors import UserError

SUMMARY_FILE = "clustering.json"
ASSIGNMENTS_FILE = "assignments.npy"


def granularity_folder(folder: Path, num_clusters: int, num_granularities: int) -> Path:
    """Where centroids and assignments of one granularity lie: the folder itself if it is the only one, else k50."""
    return folder / f"k{num_clusters}" if num_granularities > 1 else folder


def read_assignment(folder: Path, num_clusters: int) -> np.ndarray:
    """The cluster ids of one granularity, int32 [N]; -1 for a vector that was left out.

    Raises:
        UserError: no finished clustering, or none of this granularity.
    """
    summary = folder / SUMMARY_FILE
    if not summary.is_file():
        raise UserError(f"{folder}: holds no finished clustering ({SUMMARY_FILE}); make one with `clray cluster`")
    known = [each["num_clusters"] for each in json.loads(summary.read_text(encoding="utf-8"))["granularities"]]
    if num_clusters not in known:
        raise UserError(f"{folder}: holds clusters for K = {', '.join(map(str, known))}; got {num_clusters}")
    return np.load(granularity_folder(folder, num_clusters, len(known)) / ASSIGNMENTS_FILE, allow_pickle=False)
