"""Near-duplicates by a brute force in float64, and what any answer must hold."""

import numpy as np
import pytest

from clray.kmeans import near as near_module
from clray.kmeans.near import first_near


def greedy(vectors: np.ndarray, cosine: float) -> list[int]:
    """Row by row in float64."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-300)
    found: list[int] = []
    for i in range(len(unit)):
        kept = [j for j in range(i) if found[j] < 0 and unit[i] @ unit[j] >= cosine]
        found.append(max(kept, key=lambda j: unit[i] @ unit[j]) if kept else -1)
    return found


@pytest.mark.parametrize("block", [1, 3, 7, 1024])
@pytest.mark.parametrize("cosine", [0.3, 0.8, 0.95])
def test_each_vector_goes_to_the_nearest_kept_one_before_it(
    monkeypatch: pytest.MonkeyPatch, block: int, cosine: float
) -> None:
    monkeypatch.setattr(near_module, "BLOCK", block)
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(size=(20, 3)), rng.normal(size=(5, 3)).repeat(4, axis=0)])
    vectors = (vectors + rng.normal(size=vectors.shape) * 0.1).astype(np.float32)
    found, similarity = first_near(vectors, cosine)
    assert found.tolist() == greedy(vectors.astype(np.float64), cosine)
    assert (np.isnan(similarity) == (found < 0)).all()
    assert (similarity[found >= 0] >= cosine - 1e-5).all()


def test_equal_directions_are_duplicates_at_a_cosine_of_1_and_zero_vectors_are_kept() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(300, 64)).astype(np.float32)
    scaled = np.concatenate([vectors, vectors * rng.uniform(0.1, 90, (300, 1)).astype(np.float32)])
    found, _ = first_near(np.concatenate([scaled, np.zeros((2, 64), np.float32)]), 1.0)
    assert found.tolist() == [-1] * 300 + [*range(300)] + [-1, -1]
