"""When to ask for new clusters, and taking them over."""

import time

import numpy as np
import torch

from clray.clusters.assignment import ClusterAssignment
from clray.config import Config
from clray.data.datasets import Dataset
from clray.data.loaders import ordered_batches, shard_indices
from clray.kmeans.lloyd import Clustering
from clray.model.features import compute_features
from clray.objective.prototypes import concentrations
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
    """Embed this worker's images, cluster the embeddings of all workers, and put the new assignments into the state.

    The vectors are the unit-length embeddings z of the images without augmentation, as in the authors' protocol; of the
    momentum encoder where there is one.
    """
    assert session.cluster is not None, "a run with k-means clusters is launched with a way to compute them"
    start = time.perf_counter()
    seed = derive_seed(config.seed, "kmeans", epoch=state.epoch) % 2**32
    z = _embed(state, data, config, session)
    initial = state.centroids if config.kmeans.warm_start else None
    clusterings = session.cluster(
        z,
        config.clusters.counts,
        nested=config.clusters.granularities is not None and config.objective.name != "pcl",
        seed=seed,
        initial=initial,
    )
    assignments = tuple(
        ClusterAssignment(_of_all_workers(each.ids, len(data.train), session), each.num_clusters, "kmeans")
        for each in clusterings
    )
    metrics = {
        "recluster/num_iterations": float(clusterings[0].num_iterations),
        "recluster/inertia": clusterings[0].inertia,
    }
    if state.assignments[0].source == "kmeans":
        metrics["recluster/moved_fraction"] = assignments[0].moved_fraction(state.assignments[0])
    state.assignments, state.centroids = assignments, [each.centroids for each in clusterings]
    state.clustered_epoch = state.epoch
    phis = _concentrations(z, clusterings, config, session) if config.objective.name == "pcl" else None
    state.objective.take_clusters(state.centroids, phis, renamed=initial is None, seed=seed)
    seconds = time.perf_counter() - start
    # The run waits for its clusters, so all of the time is a stall.
    return metrics | {"recluster/seconds": seconds, "recluster/stall_seconds": seconds}


def _embed(state: TrainState, data: Dataset, config: Config, session: Session) -> np.ndarray:
    """z of this worker's images, float32 [n, dim]."""
    indices = shard_indices(len(data.train), session.rank, session.world_size)
    batches = ordered_batches(
        data.train, indices, batch_size=EMBEDDING_BATCH_SIZE, num_decoders=config.data.num_decoders
    )
    _, z = compute_features(state.objective.embedding_model(state.model), batches, session.device)
    return z


def _of_all_workers(values: np.ndarray, num_samples: int, session: Session) -> np.ndarray:
    """What each worker knows of its own images, for all images in dataset order, int64 [N]."""
    result = np.empty(num_samples, np.int64)
    for rank, part in enumerate(gather(values, session.world_size)):
        result[shard_indices(num_samples, rank, session.world_size)] = part
    return result


def _concentrations(z: np.ndarray, clusterings: list[Clustering], config: Config, session: Session) -> list[np.ndarray]:
    """PCL's concentration of each cluster of each granularity, over the images of all workers."""
    phis = []
    for each in clusterings:
        distances = np.linalg.norm(z - each.centroids[each.ids], axis=1)
        all_distances, all_ids = (
            np.concatenate(gather(values, session.world_size)) for values in (distances, each.ids)
        )
        temperature = config.objective.temperature
        phis.append(concentrations(all_distances, all_ids, each.num_clusters, temperature=temperature))
    return phis


def ids_on_device(assignments: tuple[ClusterAssignment, ...], device: torch.device) -> torch.Tensor:
    """The clusters of each sample, int64 [granularities, N]."""
    return torch.from_numpy(np.stack([each.ids for each in assignments])).to(device)
