"""Clusters from attributes or a hierarchy at several granularities: what they tell about the labels, and files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.hierarchy import hierarchy_clusters, read_tree
from clray.clusters.known import attribute_clusters, rank_attributes, require_labels
from clray.clusters.saved import ASSIGNMENTS_FILE, SUMMARY_FILE, granularity_folder
from clray.clusters.statistics import cluster_metrics
from clray.errors import UserError
from clray.folder_lock import folder_locked, holds_nothing

TABLE_FILE = "clusters.parquet"


@dataclass(frozen=True)
class Granularity:
    """One way to cluster the samples.

    Attributes:
        number: how many attributes, or the level of a hierarchy.
        metrics: what can be known of the clusters, as `cluster_metrics` gives it.
        attributes: those taken, in the order of falling entropy, with their entropies in bits.
    """

    number: int
    assignment: ClusterAssignment
    metrics: dict[str, float]
    attributes: tuple[tuple[str, float], ...] = ()


def build_attribute_clusters(
    attributes: dict[str, Int[np.ndarray, " n"]], labels: Int[np.ndarray, " n"], counts: list[int]
) -> list[Granularity]:
    """Clusters by the `k` attributes of highest entropy for each k of `counts`.

    Raises:
        UserError: more attributes wanted than there are.
    """
    if max(counts) > len(attributes) or min(counts) < 1:
        raise UserError(f"counts: must be between 1 and {len(attributes)} (the attributes); got {counts}")
    ranked = rank_attributes(attributes)
    found = []
    for count in counts:
        assignment = attribute_clusters(attributes, count)
        metrics = cluster_metrics(assignment.ids, labels, assignment.num_clusters)
        found.append(Granularity(count, assignment, metrics, tuple(ranked[:count])))
    return found


def build_hierarchy_clusters(
    labels: Int[np.ndarray, " n"], names: tuple[str, ...], tree: Path, levels: list[int]
) -> list[Granularity]:
    """The ancestors of the classes in a tree at each of `levels`.

    Raises:
        UserError: a label is missing, or as `hierarchy_clusters`.
    """
    require_labels("hierarchy", labels)
    parents = read_tree(tree)
    found = []
    for level in levels:
        assignment = hierarchy_clusters(labels, names, parents, level)
        found.append(Granularity(level, assignment, cluster_metrics(assignment.ids, labels, assignment.num_clusters)))
    return found


def write_clusters(folder: Path, found: list[Granularity], labels: Sequence[str | None]) -> None:
    """Write the assignments where `clusters.source: clustering` finds them, and as a table for `clray statistics`.

    The table has a row per sample, its `label` where it has one, and a column `label_gran_K` per granularity, the
    authors' name for it.

    Raises:
        UserError: the folder is not empty.
    """
    with folder_locked(folder):
        if not holds_nothing(folder):
            raise UserError(f"{folder}: exists and is not empty; choose another folder")
        _write(folder, found, labels)


def _write(folder: Path, found: list[Granularity], labels: Sequence[str | None]) -> None:
    # Granularities with equally many clusters are the same clusters: more attributes only split them.
    different = {each.assignment.num_clusters: each for each in found}
    for num_clusters, each in different.items():
        place = granularity_folder(folder, num_clusters, len(different))
        place.mkdir(parents=True, exist_ok=True)
        np.save(place / ASSIGNMENTS_FILE, each.assignment.ids.astype(np.int32))
    table = pd.DataFrame({"label": labels} | {f"label_gran_{each.number}": each.assignment.ids for each in found})
    table.to_parquet(folder / TABLE_FILE, index=False)
    granularities = [
        {
            "num_clusters": num_clusters,
            "granularity": each.number,
            "attributes": dict(each.attributes),
            **each.metrics,
        }
        for num_clusters, each in different.items()
    ]
    # Written last: it says that the rest is there.
    (folder / SUMMARY_FILE).write_text(json.dumps({"granularities": granularities}, indent=2), encoding="utf-8")
