import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from clray.evaluate.nearest_neighbors import nearest_neighbor_accuracy

RNG = np.random.default_rng(0)
H = RNG.normal(size=(400, 6)).astype(np.float32)
LABELS = (H[:, 0] > 0).astype(np.int64) + (H[:, 1] > 0)
SPLITS = (H[:300], LABELS[:300], H[300:], LABELS[300:])


@pytest.mark.parametrize("num_neighbors", [1, 5, 500])
def test_agrees_with_scikit_learn(num_neighbors: int) -> None:
    reference = KNeighborsClassifier(
        min(num_neighbors, 300), metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(*SPLITS[:2])
    found = nearest_neighbor_accuracy(*SPLITS, num_neighbors=num_neighbors)
    assert found == pytest.approx(reference.score(*SPLITS[2:]), abs=0.011)


def test_a_sample_among_its_own_training_set_finds_itself() -> None:
    assert nearest_neighbor_accuracy(H, LABELS, H, LABELS, num_neighbors=1) == 1.0


def test_one_near_neighbour_outvotes_two_that_are_far() -> None:
    train = np.array([[1, 0.1], [1, 1], [1, -1]], np.float32)
    splits = (train, np.array([0, 1, 1]), np.array([[1, 0]], np.float32), np.array([0]))
    assert nearest_neighbor_accuracy(*splits, num_neighbors=3) == 1.0
    assert nearest_neighbor_accuracy(*splits, num_neighbors=3, temperature=100.0) == 0.0
