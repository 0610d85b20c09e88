"""Synthetic points of a sweep that are another point under a second name: they are trained once."""

import hashlib
import json
from dataclasses import replace

import numpy as np

from clray.config import Config
from clray.config.rules import PLAIN_OBJECTIVES
from clray.sweeps.search_space import SweepPlan, SweepPoint
from clray.training.start import StartClusters, clusters_key

ALIKE = ("instance", "labels")
"""The sources that synthetic clusters can coincide with: InfoNCE's and SupCon's."""

MAKE_SYNTHETIC = {"source", "num_merged", "num_splits", "permuted_fraction"}
"""Keys of `clusters` that act on the assignment alone."""


def without_coincident(plan: SweepPlan, clusters: StartClusters) -> tuple[SweepPlan, list[str]]:
    """The plan without the synthetic points whose clusters are the classes or the images of another point.

    Merging no classes and splitting none gives SupCon; splitting until every image is alone gives InfoNCE.

    Args:
        clusters: that the trials start with.

    Returns:
        The plan, its trials numbered as before, and a word on each point that is left out.
    """
    plain = {_what(each.config, clusters): each for each in plan.points if _source(each) in ALIKE}
    kept, notes = list[SweepPoint](), list[str]()
    for point in plan.points:
        twin = plain.get(_what(point.config, clusters)) if plain and _source(point) == "synthetic" else None
        if twin is None:
            kept.append(point)
        else:
            notes.append(f"trial {point.name} has the clusters of {twin.name}, and is left out")
    return replace(plan, num_trials=plan.num_trials - len(notes), points=kept), notes


def _source(point: SweepPoint) -> str:
    return point.config.clusters.source


def _what(config: Config, clusters: StartClusters) -> str:
    """Equal for runs that train alike: the config without the source of its clusters, and who shares a cluster."""
    tree = config.model_dump(mode="json", exclude={"clusters": MAKE_SYNTHETIC, "search_space": True})
    if config.objective.name in PLAIN_OBJECTIVES:
        tree["objective"]["name"] = PLAIN_OBJECTIVES[0]
    return json.dumps([tree, [_partition(each.ids) for each in clusters[clusters_key(config)]]], sort_keys=True)


def _partition(ids: np.ndarray) -> str:
    """Equal for assignments that differ in the names of their clusters alone."""
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    return hashlib.sha256(first[inverse].astype(np.int64).tobytes()).hexdigest()
