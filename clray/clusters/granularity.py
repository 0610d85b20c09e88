"""Clusters from attributes or a hierarchy at several granularities: what they tell about the labels, and files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jaxtyping import Int

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.hierarchy import hierarchy_clusters, read_tree
from clray.clusters.known import attribute_clusters, order_attributes, require_labels
from clray.clusters.saved import ASSIGNMENTS_FILE, SUMMARY_FILE, granularity_folder
from clray.clusters.statistics import cluster_metrics
from clray.errors import UserError
from clray.folder_lock import folder_locked, holds_nothing

TABLE_FILE = "clusters.parquet"
CONFIG_FILE = "train.yaml"


@dataclass(frozen=True)
class Granularity:
    """One way to cluster the samples.

    Attributes:
        number: how many attributes, or the level of a hierarchy.
        metrics: what can be known of the clusters, as `cluster_metrics` gives it.
        attributes: those taken, in their order, with their entropies in bits.
    """

    number: int
    assignment: ClusterAssignment
    metrics: dict[str, float]
    attributes: tuple[tuple[str, float], ...] = ()


def build_attribute_clusters(
    columns: dict[str, Int[np.ndarray, " n"]],
    labels: Int[np.ndarray, " n"],
    counts: list[int] | None = None,
    *,
    candidates: Sequence[str] | None = None,
    order: Sequence[str] | None = None,
) -> list[Granularity]:
    """Clusters by the first `k` attributes, for each k of `counts`; the order is that of `order_attributes`.

    Args:
        counts: by default three, or all of fewer attributes.

    Raises:
        UserError: more attributes wanted than there are, or one that there is not.
    """
    ordered = order_attributes(columns, candidates=candidates, order=order)
    counts = [min(3, len(ordered))] if counts is None else counts
    if max(counts) > len(ordered) or min(counts) < 1:
        raise UserError(f"counts: must be between 1 and {len(ordered)} (the attributes); got {counts}")
    found = []
    for count in counts:
        assignment = attribute_clusters(columns, count, order=[name for name, _ in ordered])
        metrics = cluster_metrics(assignment.ids, labels, assignment.num_clusters)
        found.append(Granularity(count, assignment, metrics, tuple(ordered[:count])))
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


def trainable_counts(found: list[Granularity]) -> list[int]:
    """Numbers of clusters that can be trained on, each once: a single cluster tells nothing apart."""
    return sorted({each.assignment.num_clusters for each in found} - {1})


def write_clusters(
    folder: Path, found: list[Granularity], labels: Sequence[str | None], data: Mapping[str, Any] | None = None
) -> None:
    """Write the assignments where `clusters.source: clustering` finds them, and as a table for `clray statistics`.

    The table has a row per sample, its `label` where it has one, and a column `label_gran_K` per granularity, the
    authors' name for it.

    Args:
        data: the section that reads the samples; with it, a config that trains on their clusters is written too.

    Raises:
        UserError: the folder is not empty.
    """
    with folder_locked(folder):
        if not holds_nothing(folder):
            raise UserError(f"{folder}: exists and is not empty; choose another folder")
        if data is not None and trainable_counts(found):
            (folder / CONFIG_FILE).write_text(_config(folder, data, trainable_counts(found)), encoding="utf-8")
        _write(folder, found, labels)


def _config(folder: Path, data: Mapping[str, Any], counts: list[int]) -> str:
    """A run on the coarsest of the granularities, and a sweep over all."""
    clusters = {"source": "clustering", "path": str(folder.absolute()), "num_clusters": counts[0]}
    space = {"clusters.num_clusters": {"grid_search": counts}}
    return yaml.safe_dump({"data": dict(data), "clusters": clusters, "search_space": space}, sort_keys=False)


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
