"""The vote of the nearest against scikit-learn's and FAISS's neighbours."""

import faiss
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from sklearn.neighbors import KNeighborsClassifier

from clray.evaluate import nearest_neighbors
from clray.evaluate.labelled import Labelled
from clray.evaluate.nearest_neighbors import nearest, nearest_neighbor_measures

CPU = torch.device("cpu")
RNG = np.random.default_rng(0)
H = RNG.normal(size=(400, 6)).astype(np.float32)
LABELS = (H[:, 0] > 0).astype(np.int64) + (H[:, 1] > 0)
TRAIN, TEST = Labelled(H[:300], LABELS[:300]), Labelled(H[300:], LABELS[300:])


def accuracy(train: Labelled, test: Labelled, num_neighbors: int, temperature: float = 0.07) -> float:
    return nearest_neighbor_measures(
        train, test, num_classes=3, num_neighbors=num_neighbors, device=CPU, temperature=temperature
    )["knn_accuracy"]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest_neighbors, "TILE_ROWS", 30)
    monkeypatch.setattr(nearest_neighbors, "TILE_COLUMNS", 70)


@pytest.mark.parametrize("num_neighbors", [1, 5, 500])
def test_agrees_with_scikit_learn(num_neighbors: int) -> None:
    reference = KNeighborsClassifier(
        min(num_neighbors, 300), metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(TRAIN.h, TRAIN.labels)
    assert accuracy(TRAIN, TEST, num_neighbors) == pytest.approx(reference.score(TEST.h, TEST.labels), abs=0.011)


@pytest.mark.parametrize("num_neighbors", [1, 20, 100])
def test_the_nearest_are_those_of_faiss(num_neighbors: int) -> None:
    values, rows = nearest(torch.from_numpy(TEST.h), torch.from_numpy(TRAIN.h), num_neighbors)
    expected, numbers = faiss.knn(TEST.h, TRAIN.h, num_neighbors, metric=faiss.METRIC_INNER_PRODUCT)
    np.testing.assert_allclose(values.numpy(), expected, atol=1e-5)
    assert (rows.numpy() == numbers).mean() > 0.999


def test_a_sample_among_its_own_training_set_finds_itself() -> None:
    assert accuracy(TRAIN, TRAIN, 1) == 1.0


def test_one_near_neighbour_outvotes_two_that_are_far() -> None:
    train = Labelled(np.array([[1, 0.1], [1, 1], [1, -1]], np.float32), np.array([0, 1, 1]))
    test = Labelled(np.array([[1, 0]], np.float32), np.array([0]))
    assert accuracy(train, test, 3) == 1.0
    assert accuracy(train, test, 3, temperature=100.0) == 0.0


def test_several_labels_a_sample_score_by_the_share_of_the_vote() -> None:
    flags = np.stack([LABELS == 0, H[:, 2] > 1], axis=1).astype(np.int64)
    train, test = Labelled(TRAIN.h, flags[:300].copy()), Labelled(TEST.h, flags[300:])
    # A neighbour whose label is not known has no vote on it.
    train.labels[::4, 1] = -1
    found = nearest_neighbor_measures(train, test, num_classes=0, num_neighbors=9, device=CPU)
    known = np.flatnonzero(train.labels[:, 1] >= 0)
    cosines = (test.h / np.linalg.norm(test.h, axis=1, keepdims=True)) @ (
        train.h / np.linalg.norm(train.h, axis=1, keepdims=True)
    ).T
    precisions = []
    for flag in range(2):
        scores = []
        for row in cosines:
            nine = [n for n in np.argsort(-row)[:9] if flag == 0 or n in known]
            weights = np.exp((row[nine] - row.max()) / 0.07)
            scores.append(weights @ train.labels[nine, flag] / max(weights.sum(), 1e-12))
        precisions.append(average_precision_score(test.labels[:, flag], scores))
    assert found["knn_mean_average_precision"] == pytest.approx(np.mean(precisions), abs=1e-4)
