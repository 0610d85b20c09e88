"""Clusters are counted once for each assignment, and by one worker."""

from types import SimpleNamespace

import numpy as np
import pytest

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.statistics import cluster_metrics
from clray.data.images.array import ArrayImages
from clray.data.samples import Samples
from clray.training import cluster_metrics as module
from clray.training.cluster_metrics import ClusterMetrics

LABELS = np.arange(60) % 5


def samples(**targets: np.ndarray) -> Samples:
    return Samples(ArrayImages(np.zeros((60, 1, 8, 8), np.uint8)), LABELS, {}, targets=targets)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The ids that were counted."""
    seen: list[np.ndarray] = []

    def count(ids: np.ndarray, *rest: object) -> object:
        seen.append(ids)
        return cluster_metrics(ids, *rest)

    monkeypatch.setattr(module, "cluster_metrics", count)
    return seen


def test_an_assignment_is_counted_once_however_many_epochs_it_serves(counted: list[np.ndarray]) -> None:
    metrics = ClusterMetrics(samples(), SimpleNamespace(rank=0, world_size=1))
    assignments = [ClusterAssignment(np.arange(60) % k, 6, "kmeans") for k in (4, 6)]
    found = [metrics.of(assignments[number]) for number in (0, 0, 0, 1, 1)]
    assert len(counted) == 2
    for number, each in zip((0, 0, 0, 1, 1), found, strict=True):
        assert each["clusters/nmi"] == cluster_metrics(assignments[number].ids, LABELS, 6)["clusters/nmi"]
    assert found[0]["clusters/largest_fraction"] == 15 / 60


def test_further_columns_of_labels_are_told_by_name() -> None:
    colours = np.where(np.arange(60) < 30, np.arange(60) % 3, -1)
    assignment = ClusterAssignment(np.arange(60) % 6, 6, "kmeans")
    plain = ClusterMetrics(samples(), SimpleNamespace(rank=0, world_size=1)).of(assignment)
    found = ClusterMetrics(samples(colour=colours), SimpleNamespace(rank=0, world_size=1)).of(assignment)
    further = {name: value for name, value in found.items() if name.endswith("/colour")}
    assert {name: value for name, value in found.items() if name not in further} == plain
    expected = cluster_metrics(assignment.ids, colours, 6)
    assert further["clusters/mutual_information_bits/colour"] == expected["clusters/mutual_information_bits"] > 1
    assert further["clusters/num_labelled/colour"] == 30
    assert "clusters/entropy_bits/colour" not in further


def test_other_workers_take_the_count_of_rank_0(
    counted: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    sent: list[object] = []

    def gather(own: object, world_size: int) -> list[object]:
        sent.append(own)
        return [{"clusters/nmi": 0.25}, *[{}] * (world_size - 1)]

    monkeypatch.setattr(module, "gather_objects", gather)
    metrics = ClusterMetrics(samples(), SimpleNamespace(rank=1, world_size=3))
    assignment = ClusterAssignment(LABELS, 5, "labels")
    assert metrics.of(assignment) == metrics.of(assignment) == {"clusters/nmi": 0.25}
    assert (sent, counted) == ([{}], [])
