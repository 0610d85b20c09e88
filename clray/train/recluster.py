"""When to ask for new clusters, and taking them over."""

import time

import numpy as np
import torch

from clray.clusters.assignment import ClusterAssignment
from clray.config import Config
from clray.data.datasets import Dataset
from clray.data.loaders import ordered_batches, shard_indices
from clray.model.features import compute_features
from clray.seeding import derive_seed
from clray.train.session import Metrics, Session, gather
from clray.train.state import TrainState

EMBEDDING_BATCH_SIZE = 512


def is_due(config: Config, epoch: int) -> bool:
    """Whether clusters are computed before epoch `epoch` (from 0) is trained."""
    if config.clusters.source != "kmeans":
        return False
    since_warmup = epoch - config.recluster.warmup_epochs
    return since_warmup >= 0 and since_warmup % config.recluster.every_epochs == 0


def recluster(state: TrainState, data: Dataset, config: Config, session: Session) -> Metrics:
    """Embed this worker's images, cluster the embeddings of all workers, and put the new assignment into the state.

    The vectors are the unit-length embeddings z of the images without augmentation, as in the authors' protocol.
    """
    assert session.cluster is not None, "a run with k-means clusters is launched with a way to compute them"
    start = time.perf_counter()
    indices = shard_indices(len(data.train), session.rank, session.world_size)
    batches = ordered_batches(
        data.train, indices, batch_size=EMBEDDING_BATCH_SIZE, num_decoders=config.data.num_decoders
    )
    _, z = compute_features(state.model, batches, session.device)
    clustering = session.cluster(
        z,
        config.clusters.num_clusters,
        seed=derive_seed(config.seed, "kmeans", epoch=state.epoch) % 2**32,
        initial=state.centroids if config.kmeans.warm_start else None,
    )
    ids = np.empty(len(data.train), np.int64)
    for rank, part in enumerate(gather(clustering.ids, session.world_size)):
        ids[shard_indices(len(data.train), rank, session.world_size)] = part
    assignment = ClusterAssignment(ids, config.clusters.num_clusters, "kmeans")
    metrics = {
        "recluster/num_iterations": float(clustering.num_iterations),
        "recluster/inertia": clustering.inertia,
    }
    if state.assignment.source == "kmeans":
        metrics["recluster/moved_fraction"] = assignment.moved_fraction(state.assignment)
    state.assignment, state.centroids, state.clustered_epoch = assignment, clustering.centroids, state.epoch
    seconds = time.perf_counter() - start
    # The run waits for its clusters, so all of the time is a stall.
    return metrics | {"recluster/seconds": seconds, "recluster/stall_seconds": seconds}


def ids_on_device(assignment: ClusterAssignment, device: torch.device) -> torch.Tensor:
    """The cluster of each sample, int64 [N]."""
    return torch.from_numpy(assignment.ids).to(device)
