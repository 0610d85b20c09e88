"""Which members of the clusters count in training, and the ids that a step sees."""

import numpy as np
import torch

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.confidence import margins, most_confident, with_loners
from clray.config import Config
from clray.kmeans.lloyd import Clustering
from clray.seeding import derive_seed
from clray.training.state import TrainState
from clray.training.workers.port import Session

Vectors = tuple[np.ndarray, ...]
"""Of this worker's images, float32 [n, dim] each: what was clustered, or two views of it."""


def own_margins(vectors: Vectors, clusterings: list[Clustering], device: torch.device) -> list[np.ndarray]:
    """How clearly this worker's images belong to their cluster under each granularity, float32 [n].

    Of several vectors an image the least decides: all of them must lie with the cluster.
    """
    return [
        np.minimum.reduce([margins(each, clustering.centroids, clustering.ids, device) for each in vectors])
        for clustering in clusterings
    ]


def needs_margins(config: Config) -> bool:
    """Whether members are chosen by where they lie."""
    return 0 < config.clusters.confidence < 1 and config.clusters.confidence_by != "random"


def choose_members(config: Config, state: TrainState, scores: list[np.ndarray] | None, session: Session) -> None:
    """Choose the members that count of each cluster of the assignments in use. Every rank must call it.

    Args:
        scores: of all images under each granularity, float [N]; None draws at random, by the run's seed and its step.
    """
    settings, first = config.clusters, state.assignments[0]
    if settings.confidence == 1 or first.source == "instance":
        state.confident = None
        return
    seed = derive_seed(config.seed, "members", epoch=state.step)
    state.confident = session.share(lambda: _chosen(settings.confidence, state.assignments, scores, seed))


def _chosen(
    share: float, assignments: tuple[ClusterAssignment, ...], scores: list[np.ndarray] | None, seed: int
) -> np.ndarray:  # fmt: skip
    """The members that count, bool [granularities, N]."""
    if scores is None:
        scores = list(np.random.default_rng(seed).random((len(assignments), len(assignments[0]))))
    return np.stack(
        [most_confident(each.ids, score, share) for each, score in zip(assignments, scores, strict=True)]
    )  # fmt: skip


def draws_every_epoch(config: Config) -> bool:
    """Whether the members that count are drawn anew in each epoch; those chosen by margin change with the clusters."""
    settings = config.clusters
    return settings.confidence < 1 and (settings.confidence_by == "random" or settings.source != "kmeans")


def training_ids(config: Config, state: TrainState) -> np.ndarray:
    """The clusters that a step sees, int32 [granularities, N]: a member that does not count is a cluster of its own.

    Where none counts, all granularities are the same, and one stands for all: the loss is InfoNCE to the bit.
    """
    assignments, confident = state.assignments, state.confident
    if confident is None:
        return _stack(assignments)
    if not confident.any() and not config.objective.is_own:
        return np.arange(len(assignments[0]), dtype=np.int32)[None]
    rows = zip(assignments, confident, strict=True)
    return np.stack([with_loners(each.ids, each.num_clusters, counts) for each, counts in rows])


def _stack(assignments: tuple[ClusterAssignment, ...]) -> np.ndarray:
    return np.stack([each.ids for each in assignments])
