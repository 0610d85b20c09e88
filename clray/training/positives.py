"""How many positives an anchor will have under k-means, before there are clusters, and what to do about many."""

import math
from collections.abc import Sequence

from clray.config import Config
from clray.config.rules import weighs_positives

MANY = 2.0
"""Positives an anchor, beyond which clusters that are made from what they train tend to repeat their own mistakes."""


def expected_positives(config: Config, num_images: int) -> float | None:
    """The least `train/positives_per_anchor` to expect once k-means clusters are in use; None where others are.

    An anchor's own view, and of its B - 1 companions in the global batch those of its cluster. Their share is
    sum p_k^2, which for K even clusters is 1/K, and more for others. An image counts with probability c
    (`clusters.confidence`), and as one of another image with weight w (`objective.cluster_weight`); several
    granularities are averaged:

        1 + w c^2 views (B - 1) / K
    """
    if config.clusters.source != "kmeans" or not weighs_positives(config):
        return None
    factor = config.objective.cluster_weight * config.clusters.confidence**2
    return 1 + factor * _companions(config, num_images)


def positives_notes(configs: Sequence[Config], num_images: int) -> tuple[str, ...]:
    """One warning for all runs where k-means gives an anchor many positives, with what to do; none where it does not.

    Source of the threshold: the authors have 1.1 (128 images, K = 2,500); docs/clusters.md has what more did.
    """
    expected = [(each, expected_positives(each, num_images)) for each in configs]
    many = [(config, number) for config, number in expected if number is not None and number > MANY]
    if not many:
        return ()
    # What the worst of them asks for, suffices for all.
    config, most = max(many, key=lambda pair: pair[1])
    counts = sorted({count for each, _ in many for count in each.clusters.counts})
    batch = min(config.train.global_batch_size, num_images)
    companions = _companions(config, num_images)
    enough = math.ceil(companions * max(config.clusters.counts))
    share = math.sqrt(1 / (companions * config.objective.cluster_weight))
    ways = [f"clusters.confidence={_floored(share)}"]
    weight = 1 / (companions * config.clusters.confidence**2)
    ways.append(f"objective.cluster_weight={_floored(weight)}")
    if enough <= num_images and config.train.sampler != "cluster":
        ways.insert(0, f"clusters.num_clusters={enough}")
    up_to = "" if len({number for _, number in many}) == 1 else "up to "
    note = (
        f"k-means with clusters.num_clusters={_listed(counts)} gives an anchor {up_to}about {most:.3g} positives in a "
        f"batch of {batch}; beyond about {MANY:g}, its clusters tend to repeat their own mistakes. Enough would be "
        f"{', '.join(ways[:-1])} or {ways[-1]} (docs/clusters.md, Too many positives)"
    )
    return (note,)


def _companions(config: Config, num_images: int) -> float:
    """Positives of other images to expect at full weight, the mean over granularities."""
    objective, counts = config.objective, config.clusters.counts
    batch = min(config.train.global_batch_size, num_images)
    if objective.negatives == "queue":
        views, others = 1, batch - 1 + objective.queue_size
    else:
        is_across = objective.dual_head and objective.dual_head_clusters == "instance-head"
        views, others = 1 if is_across else 2, batch - 1
    of_cluster = sum(others / count for count in counts) / len(counts)
    if config.train.sampler == "cluster":
        of_cluster = max(of_cluster, min(config.train.members_per_cluster, batch) - 1)
    return views * of_cluster


def _floored(value: float) -> str:
    """To two digits that do not exceed it."""
    digits = 1 - math.floor(math.log10(value))
    return f"{math.floor(value * 10**digits) / 10**digits:g}"


def _listed(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(counts) == 1 else f"{', '.join(map(str, counts[:-1]))} and {counts[-1]}"
