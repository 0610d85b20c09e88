"""Assignments fixed before training, by `clusters.source`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.hierarchy import hierarchy_clusters, read_tree
from clray.clusters.saved import read_assignment
from clray.clusters.statistics import entropy_bits
from clray.clusters.synthetic import synthetic_clusters
from clray.config.sections import ClustersConfig
from clray.errors import UserError
from clray.seeding import derive_seed
from clray.user_code import import_named


def instance_clusters(num_samples: int) -> ClusterAssignment:
    """Every sample its own cluster: Cl-InfoNCE becomes InfoNCE (SimCLR's NT-Xent)."""
    return ClusterAssignment(np.arange(num_samples), num_samples, "instance")


def value_clusters(values: Int[np.ndarray, " n"], source: str) -> ClusterAssignment:
    """One cluster per distinct value."""
    distinct, ids = np.unique(values, return_inverse=True)
    return ClusterAssignment(ids, len(distinct), source)


def rank_attributes(attributes: dict[str, Int[np.ndarray, " n"]]) -> list[tuple[str, float]]:
    """Attributes with their entropies in bits, highest first; ties by name."""
    entropies = [(name, entropy_bits(values)) for name, values in attributes.items()]
    return sorted(entropies, key=lambda item: (-round(item[1], 9), item[0]))


def order_attributes(
    columns: dict[str, Int[np.ndarray, " n"]],
    *,
    candidates: Sequence[str] | None = None,
    order: Sequence[str] | None = None,
) -> list[tuple[str, float]]:
    """The attributes in the order in which they form clusters, with their entropies in bits.

    Args:
        candidates: ranked by falling entropy; by default every column but those that are like ids.
        order: in place of the candidates, as they stand.

    Raises:
        UserError: a name that is no column.
    """
    if order is not None:
        chosen = _columns(columns, order, "clusters.attribute_order")
        return [(name, entropy_bits(codes)) for name, codes in chosen.items()]
    if candidates is not None:
        return rank_attributes(_columns(columns, candidates, "clusters.attribute_columns"))
    ids = id_like(columns)
    return rank_attributes({name: codes for name, codes in columns.items() if name not in ids})


def id_like(columns: dict[str, Int[np.ndarray, " n"]]) -> tuple[str, ...]:
    """The columns with as many values as rows, by which every image would be its own cluster."""
    return tuple(name for name, codes in columns.items() if 1 < len(codes) == len(np.unique(codes)))


def attribute_clusters(
    attributes: dict[str, Int[np.ndarray, " n"]], num_attributes: int, *, order: Sequence[str] | None = None
) -> ClusterAssignment:
    """One cluster per distinct tuple of the `num_attributes` attributes of highest entropy, or first in `order`.

    Source: Tsai et al., arXiv 2106.02869, section 4 (data-attribute clusters).
    """
    chosen = (order or [name for name, _ in rank_attributes(attributes)])[:num_attributes]
    _, ids = np.unique(np.stack([attributes[name] for name in chosen]), axis=1, return_inverse=True)
    return value_clusters(ids.reshape(-1), "attributes")


def known_clusters(
    config: ClustersConfig,
    *,
    labels: Int[np.ndarray, " n"],
    columns: dict[str, Int[np.ndarray, " n"]],
    names: dict[str | None, tuple[str, ...]],
    seed: int,
) -> tuple[ClusterAssignment, ...]:
    """The assignments a run starts with, one per granularity; k-means starts from instance clusters.

    Args:
        labels, columns: as codes; -1 is the label of an image that has none.
        names: what the codes of a column stand for; None is the label.
        seed: of the run, for synthetic clusters.

    Raises:
        UserError: labels or a column that are not there, more attributes than there are, a clustering of other samples,
            or a tree that does not hold the classes.
    """
    if ":" in config.source:
        return (_of_user(config.source, labels=labels, columns=columns, names=names, seed=seed),)
    if config.source in ("labels", "synthetic") or (config.source == "hierarchy" and config.column is None):
        require_labels(config.source, labels)
    if config.source == "labels":
        return (value_clusters(labels, "labels"),)
    if config.source == "column":
        assert config.column is not None, "ClustersConfig requires a column"
        return (value_clusters(_columns(columns, (config.column,), "clusters.column")[config.column], "column"),)
    if config.source == "attributes":
        return (_attribute_clusters(config, columns),)
    if config.source == "hierarchy":
        assert config.tree is not None, "ClustersConfig requires a tree"
        codes = labels
        if config.column is not None:
            codes = _columns(columns, (config.column,), "clusters.column")[config.column]
        parents = read_tree(Path(config.tree))
        return tuple(hierarchy_clusters(codes, names[config.column], parents, level) for level in config.levels)
    if config.source == "synthetic":
        return (
            synthetic_clusters(
                labels,
                num_merged=config.num_merged,
                num_splits=config.num_splits,
                permuted_fraction=config.permuted_fraction,
                seed=derive_seed(seed, "synthetic clusters"),
            ),
        )
    if config.source == "clustering":
        return tuple(_saved_clusters(config, num_clusters, len(labels)) for num_clusters in config.counts)
    return (instance_clusters(len(labels)),)


def require_labels(source: str, labels: Int[np.ndarray, " n"]) -> None:
    """Raise UserError where an image has none, so that clusters of this source cannot be made."""
    num_without = int((labels < 0).sum())
    if num_without:
        which = "none of them has one" if num_without == len(labels) else f"{num_without} of {len(labels)} have none"
        by_column = ", or name the tree's nodes with clusters.column" if source == "hierarchy" else ""
        raise UserError(
            f"clusters.source={source} needs a label of every training image, and {which}. Name their column with "
            "data.label_column, or take clusters that need no labels, such as kmeans, attributes or instance"
            f"{by_column}"
        )


def _of_user(
    source: str,
    *,
    labels: np.ndarray,
    columns: dict[str, np.ndarray],
    names: dict[str | None, tuple[str, ...]],
    seed: int,
) -> ClusterAssignment:
    """Clusters by a function of the user's."""
    function = import_named(source, "clusters.source")
    ids = np.asarray(function(labels=labels, columns=columns, names=names, seed=seed))
    if ids.shape != labels.shape or not np.issubdtype(ids.dtype, np.integer):
        raise UserError(
            f"clusters.source={source}: expected {len(labels)} integers, one for each training image; got "
            f"{ids.dtype} {list(ids.shape)}"
        )
    return value_clusters(ids, source)


def _attribute_clusters(config: ClustersConfig, columns: dict[str, np.ndarray]) -> ClusterAssignment:
    ordered = order_attributes(columns, candidates=config.attribute_columns, order=config.attribute_order)
    names = [name for name, _ in ordered]
    if config.num_attributes > len(names):
        raise UserError(
            f"clusters.num_attributes must be at most {len(names)} (the attribute columns: "
            f"{', '.join(names) or 'none'}); got {config.num_attributes}"
        )
    return attribute_clusters(columns, config.num_attributes, order=names)


def note_on_ids(config: ClustersConfig, columns: dict[str, Int[np.ndarray, " n"]]) -> str | None:
    """What the user should know of columns that are no attributes of `source: attributes`; None where all are."""
    if config.source != "attributes" or config.attribute_columns or config.attribute_order:
        return None
    left_out = id_like(columns)
    if not left_out:
        return None
    return (
        f"left out of the attributes, as every image has a value of its own there: {', '.join(left_out)}; a column "
        "that is named in clusters.attribute_columns is taken"
    )


def _saved_clusters(config: ClustersConfig, num_clusters: int, num_samples: int) -> ClusterAssignment:
    assert config.path is not None, "ClustersConfig requires a path"
    ids = read_assignment(Path(config.path), num_clusters)
    if len(ids) != num_samples:
        raise UserError(
            f"clusters.path: {config.path} holds the clusters of {len(ids)} vectors, there are {num_samples} training "
            "images; cluster the embeddings of the training images, in their order"
        )
    if ids.min() < 0:
        raise UserError(
            f"clusters.path: {config.path} leaves out {int((ids < 0).sum())} vectors (NaN or infinity); cluster again "
            "from embeddings that are finite"
        )
    return ClusterAssignment(ids, num_clusters, "clustering")


def _columns(columns: dict[str, np.ndarray], wanted: Sequence[str], key: str) -> dict[str, np.ndarray]:
    missing = [name for name in wanted if name not in columns]
    if missing:
        raise UserError(f"{key}: no column {', '.join(missing)}; the data have: {', '.join(columns) or 'none'}")
    return {name: columns[name] for name in wanted}
