"""Which images an epoch's batches hold, and in what order.

Drawn from (seed, epoch, rank), so that a resumed run repeats it.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from clray.config import Config
from clray.data.images.port import Batch
from clray.data.loaders import training_batches
from clray.data.samples import Samples
from clray.data.sampling import cluster_order, draw_partners
from clray.seeding import derive_seed
from clray.training.state import TrainState


def order_follows_clusters(config: Config, state: TrainState) -> bool:
    """Whether an epoch's order depends on the clusters at its start."""
    return config.train.sampler == "cluster" or state.objective.draws_pairs


def epoch_batches(
    config: Config, train: Samples, state: TrainState, shard: Int[np.ndarray, " n"], *, rank: int, world_size: int
) -> Iterator[Batch]:
    """What is left of a worker's batches of the epoch.

    Args:
        shard: the worker's dataset indices.
    """
    generator = np.random.default_rng(derive_seed(config.seed, "shuffle", epoch=state.epoch, rank=rank))
    ids = state.order_ids
    assert ids is not None or not order_follows_clusters(config, state), "kept where the order follows the clusters"
    if config.train.sampler == "cluster" and ids is not None:
        order = cluster_order(shard, ids[shard], config.train.members_per_cluster, generator)
    else:
        order = train.images.order(shard, generator, config.data)
    size, steps = min(config.train.global_batch_size, len(train)) // world_size, state.steps_per_epoch
    if state.objective.draws_pairs and ids is not None:
        chosen = order[: steps * size].reshape(steps, size)
        partners = draw_partners(chosen.reshape(-1), ids, generator).reshape(steps, size)
        order, size = np.concatenate([chosen, partners], axis=1).reshape(-1), 2 * size
    order, left = order[state.step_in_epoch * size :], steps - state.step_in_epoch
    return training_batches(train, order, batch_size=size, steps=left, config=config.data)
