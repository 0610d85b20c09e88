"""A look at the clusters of a sweep's points before they are trained, and which of them are not worth it.

k-means clusters are those of the trunks, which are trained here; known clusters need none. Prints and records nothing.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import ray

from clray.clusters.chance import information_deviation_bits
from clray.clusters.worth import DEVIATION, SILHOUETTE, STABILITY, Look, judge
from clray.config import Config, override
from clray.data.samples import Dataset
from clray.evaluate.label_free import MAX_SAMPLES, silhouette
from clray.ray_runtime.room import Bundle
from clray.sweeps.search_space import SweepPlan, SweepPoint
from clray.sweeps.trials import role_of_config
from clray.sweeps.trunks import find_trunks, trunk_key
from clray.training.cluster_metrics import measure_clusters
from clray.training.first_clusterings import Wanted, read_first
from clray.training.metrics import Metrics
from clray.training.start import Start, StartClusters, clusters_key, start_clusters
from clray.training.trunk import Trunk
from clray.training.workers.gpus import with_gpus
from clray.training.workers.launch import launch
from clray.training.workers.resources import worker_group

PRESCREEN_FILE = "prescreen.json"
NOT_OF_POINTS = ("clusters", "recluster", "kmeans", "tracking", "sweep", "search_space", "output", "seed")
"""Sections and keys in which known clusters that are compared may differ."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prescreen:
    """What was seen, in the order of the points.

    Attributes:
        looks: a look for each point that could be judged, candidates alone.
        num_epochs: trained to see it.
        num_points: of the sweep, without repeats.
        note: why nothing is left out, where every point would have been.
        unseen: names of the points that have no clusters before they are trained; all are trained.
    """

    looks: tuple[Look, ...]
    num_epochs: int
    num_points: int
    note: str | None = None
    unseen: tuple[str, ...] = ()

    @property
    def left_out(self) -> dict[str, Look]:
        """By the point's name."""
        return {each.name: each for each in self.looks if each.reason is not None}

    @property
    def sentence(self) -> str:
        if self.note is not None:
            return self.note
        seen = f"looked at the clusters of {len(self.looks)} of {self.num_points} points after {self.num_epochs} epochs"
        if not self.left_out:
            return f"{seen} in all; none is dominated or empty, and all are trained"
        return f"{seen} in all; {len(self.left_out)} are not worth training: {', '.join(self.left_out)}"

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "looks": [asdict(each) for each in self.looks], "sentence": self.sentence}


def prescreen(
    config: Config,
    plan: SweepPlan,
    data: Dataset,
    folder: Path,
    *,
    clusters: StartClusters,
    service: Any | None,
    num_gpus: float,
    num_at_once: int,
) -> Prescreen:
    """Train the trunks of the sweep that are not there, and judge every point by its first clusters.

    Args:
        folder: of the sweep; it keeps the trunks, and what was seen.
        clusters: as `check_points` gives them.
        service: the k-means service.
        num_gpus: that the trunks may take together.
        num_at_once: trunks that are trained side by side.
    """
    kept = read_prescreen(folder)
    if kept is not None:
        return kept
    trunks = find_trunks(config, plan.points, folder)
    growers = {
        trunk: override(plan.points[index].config, {"sweep.metric": config.sweep.metric})
        for index, trunk in reversed(trunks.items())
        if not trunk.is_ready
    }
    _grow_all(growers, data, clusters, service, num_gpus, num_at_once)
    figures = _figures(plan.points, trunks, data, clusters)
    looks: list[Look] = []
    for names in _compared(plan.points, figures).values():
        means = [Look(name, _mean(figures[name])) for name in names]
        looks += judge(means, keep=config.sweep.prescreen_keep)
    grown = {trunk for trunk in trunks.values() if trunk.is_ready}
    found = _spared(looks, sum(trunk.num_epochs for trunk in grown), len({each.repeated_name for each in plan.points}))
    unseen = dict.fromkeys(each.repeated_name for each in plan.points if not _has_clusters_before(each.config))
    found = replace(found, unseen=tuple(unseen))
    _write(found, folder)
    return found


def read_prescreen(folder: Path) -> Prescreen | None:
    """What a sweep has seen before an interruption; None where it has seen nothing, or the file is damaged."""
    path = folder / PRESCREEN_FILE
    if not path.exists():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        looks = tuple(Look(each["name"], dict(each["figures"]), each["reason"]) for each in tree["looks"])
        unseen = tuple(tree.get("unseen", ()))  # which earlier versions did not keep
        return Prescreen(looks, int(tree["num_epochs"]), int(tree["num_points"]), tree["note"], unseen)
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged, and the clusters are looked at again: %s", path, error)
        return None


def _write(found: Prescreen, folder: Path) -> None:
    partial = folder / f"{PRESCREEN_FILE}.partial"
    partial.write_text(json.dumps(found.as_dict(), indent=2), encoding="utf-8")
    partial.replace(folder / PRESCREEN_FILE)


def _spared(looks: Sequence[Look], num_epochs: int, num_points: int) -> Prescreen:
    """Where no point would be left, all are."""
    if not looks or any(each.reason is None for each in looks):
        return Prescreen(tuple(looks), num_epochs, num_points)
    kept = tuple(Look(each.name, each.figures) for each in looks)
    note = f"all {len(looks)} candidates would be left out, and so none is: {looks[0].name} is {looks[0].reason}"
    return Prescreen(kept, num_epochs, num_points, note)


def _grow_all(
    growers: dict[Trunk, Config],
    data: Dataset,
    clusters: StartClusters,
    service: Any | None,
    num_gpus: float,
    num_at_once: int,
) -> None:
    """Train each trunk once; one that fails is left to its trials, which say why."""
    kept, open_tasks = ray.put(data), dict[Any, Trunk]()
    for trunk, config in growers.items():
        if len(open_tasks) >= num_at_once:
            _await_one(open_tasks)
        start = clusters.get(clusters_key(config))
        # A worker group reserves what it needs by itself.
        group = worker_group(config, data, num_gpus=num_gpus)
        needed = group.bundle if group.size == 1 else Bundle(0.0, 0.0)
        grow: Any = _grow.options(num_cpus=needed.cpus, num_gpus=needed.gpus)
        task = grow.remote(trunk, config, [kept], None if start is None else Start(start), service, num_gpus)
        open_tasks[task] = trunk
    while open_tasks:
        _await_one(open_tasks)


def _await_one(open_tasks: dict[Any, Trunk]) -> None:
    (done,), _ = ray.wait(list(open_tasks), num_returns=1)
    trunk = open_tasks.pop(done)
    try:
        ray.get(done)
    except Exception as error:  # whatever training raises
        lines = str(error).strip().splitlines() or [type(error).__name__]
        log.warning("%s: its epochs were not trained, and its points are not judged: %s", trunk.folder, lines[-1])


@ray.remote(max_retries=1)
def _grow(
    trunk: Trunk, config: Config, data: list[Any], start: Start | None, service: Any | None, num_gpus: float
) -> None:
    def train(own: Config, folder: Path, wanted: tuple[Wanted, ...]) -> None:
        launch(
            with_gpus(own, num_gpus), ray.get(data[0]), folder, start, asked=own, service=service,
            on_report=lambda _: None, reference=data[0], wanted=wanted,
        )  # fmt: skip

    trunk.grow(config, "prescreen", train)


def _figures(
    points: Sequence[SweepPoint], trunks: dict[int, Trunk], data: Dataset, clusters: StartClusters
) -> dict[str, list[Metrics]]:
    """Of each repeat of each candidate whose clusters are known by now, by the point's name."""
    found = defaultdict[str, list[Metrics]](list)
    opened = {trunk: read_first(trunk.folder) for trunk in set(trunks.values()) if trunk.is_ready}
    known: dict[str, Metrics] = {}
    for point in points:
        config = point.config
        if config.clusters.source == "kmeans":
            first = opened.get(trunks[point.index], {}).get(Wanted.of(config)) if point.index in trunks else None
            if first is not None:
                each = first.clusterings[0]
                metrics = _measured(each.ids, data, each.num_clusters)
                if first.stability is not None:
                    metrics |= {STABILITY: first.stability, SILHOUETTE: _silhouette(first.vectors, each.ids)}
                found[point.repeated_name].append(metrics)
            continue
        if not _has_clusters_before(config):
            continue
        key = clusters_key(config)
        if key not in known:
            assignment = (clusters.get(key) or start_clusters(config, data))[0]
            known[key] = _measured(assignment.ids, data, assignment.num_clusters)
        if not role_of_config(config, known[key]).is_reference:
            found[point.repeated_name].append(known[key])
    return found


def _has_clusters_before(config: Config) -> bool:
    """Whether there are clusters before training; swav finds its own in each batch, a kernel of values has none."""
    return config.objective.name != "swav" and config.clusters.source != "values"


def _compared(points: Sequence[SweepPoint], figures: dict[str, list[Metrics]]) -> dict[str, list[str]]:
    """Names of the points that differ in their clusters alone, whatever their seeds."""
    groups = defaultdict[str, list[str]](list)
    for point in points:
        config = override(point.config, {"seed": 0})
        key = trunk_key(config) if config.clusters.source == "kmeans" else None
        if key is None:
            tree = config.model_dump(mode="json")
            key = json.dumps({name: value for name, value in tree.items() if name not in NOT_OF_POINTS}, sort_keys=True)
        if point.repeated_name in figures and point.repeated_name not in groups[key]:
            groups[key].append(point.repeated_name)
    return groups


def _measured(ids: np.ndarray, data: Dataset, num_clusters: int) -> Metrics:
    metrics, has_label = measure_clusters(ids, data.train, num_clusters), data.train.labels >= 0
    if has_label.any():
        metrics[DEVIATION] = information_deviation_bits(ids[has_label], data.train.labels[has_label])
    return metrics


def _mean(repeats: Sequence[Metrics]) -> Metrics:
    names = set.intersection(*(set(each) for each in repeats))
    return {name: fmean(each[name] for each in repeats) for name in sorted(names)}


def _silhouette(vectors: np.ndarray, ids: np.ndarray) -> float:
    rows = np.linspace(0, len(ids) - 1, min(len(ids), MAX_SAMPLES)).astype(np.int64)
    return silhouette(np.asarray(vectors[rows]), ids[rows])
