"""Which trials of a sweep share the epochs before their first clustering."""

import hashlib
import json
from collections import defaultdict
from pathlib import Path

from clray.config import Config
from clray.sweeps.search_space import SweepPoint
from clray.training.first_clusterings import Wanted
from clray.training.trunk import Trunk, trunk_config

TRUNKS_FOLDER = "trunks"
LATER = ("kmeans", "tracking", "sweep", "search_space", "output")
"""Sections that do not act on the weights before the first clustering."""
ACTS_EARLY = {"recluster": ("warmup_epochs", "embeddings", "bank_momentum"), "clusters": ("source",)}
"""Of these sections only so much acts before it."""


def find_trunks(config: Config, points: list[SweepPoint], folder: Path) -> dict[int, Trunk]:
    """The trunk of each trial that shares one with others, by the trial's number.

    Args:
        config: of the sweep; with population-based training trials hand each other their weights, and share no trunk.
        folder: of the sweep.
    """
    if not config.sweep.share_warmup or config.sweep.scheduler == "pbt":
        return {}
    members = defaultdict[str, list[SweepPoint]](list)
    for point in points:
        key = trunk_key(point.config)
        if key is not None:
            members[key].append(point)
    trunks: dict[int, Trunk] = {}
    for key, shared in members.items():
        clustered = [point.config for point in shared if point.config.clusters.source == "kmeans"]
        if clustered and len(shared) > 1:
            wanted = tuple(dict.fromkeys(map(Wanted.of, clustered)))
            trunk = Trunk(folder / TRUNKS_FOLDER / key, clustered[0].recluster.warmup_epochs, wanted)
            trunks |= {point.index: trunk for point in shared}
    return trunks


def trunk_key(config: Config) -> str | None:
    """Equal for runs that are the same until their first clustering; None for one that has no such epochs.

    InfoNCE is the same all along, and shares them too. Other objectives are left out: some build their model by the
    number of clusters.
    """
    objectives = {"kmeans": ("cl-infonce",), "instance": ("cl-infonce", "infonce")}
    if config.objective.name not in objectives.get(config.clusters.source, ()):
        return None
    if not 0 < config.recluster.warmup_epochs < config.train.num_epochs:
        return None
    config = trunk_config(config)
    tree = {name: value for name, value in config.model_dump(mode="json").items() if name not in LATER}
    for section, names in ACTS_EARLY.items():
        tree[section] = {name: tree[section][name] for name in names}
    tree["num_granularities"] = len(config.clusters.counts)
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()[:12]


def describe_trunks(points: list[SweepPoint], trunks: dict[int, Trunk]) -> list[str]:
    """What is shared, a sentence for each number of trials and epochs."""
    shared = defaultdict[Trunk, list[SweepPoint]](list)
    for point in points:
        if point.index in trunks:
            shared[trunks[point.index]].append(point)
    sentences = [
        f"{len(each)} trials share {trunk.num_epochs} of {each[0].config.train.num_epochs} epochs"
        for trunk, each in shared.items()
    ]
    counted = {sentence: sentences.count(sentence) for sentence in sentences}
    return [sentence if count == 1 else f"{count} times {sentence}" for sentence, count in counted.items()]
