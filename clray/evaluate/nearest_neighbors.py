"""Accuracy of a weighted vote among the nearest training samples, by cosine similarity."""

import faiss
import numpy as np
from jaxtyping import Float, Int


def nearest_neighbor_accuracy(
    train_h: Float[np.ndarray, "n dim"],
    train_labels: Int[np.ndarray, " n"],
    test_h: Float[np.ndarray, "m dim"],
    test_labels: Int[np.ndarray, " m"],
    *,
    num_neighbors: int,
    temperature: float = 0.07,
) -> float:
    """Share of the test samples whose neighbours' vote, weighted by exp(cosine/temperature), is right.

    Source: Wu et al., arXiv 1805.01978, section 3.4.
    """
    train, test = _normalized(train_h), _normalized(test_h)
    similarity, neighbors = faiss.knn(test, train, min(num_neighbors, len(train)), metric=faiss.METRIC_INNER_PRODUCT)
    votes = np.zeros((len(test), int(train_labels.max()) + 1))
    # The largest similarity is taken out first, so that the exponent cannot overflow.
    weights = np.exp((similarity - similarity[:, :1]) / temperature)
    np.add.at(votes, (np.arange(len(test))[:, None], train_labels[neighbors]), weights)
    return float(np.mean(votes.argmax(1) == test_labels))


def _normalized(vectors: np.ndarray) -> np.ndarray:
    norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.ascontiguousarray(vectors / norms, dtype=np.float32)
