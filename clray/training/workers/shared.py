"""Arrays that all workers of a group read: one copy in the object store of each node, none in a worker's own memory."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
import ray
import ray.train.collective
from ray.exceptions import ObjectStoreFullError, OutOfDiskError

from clray.training.workers.port import Session, agree, from_first, gather_objects

GENERATIONS = 2
"""Copies for which a store has room: an array, and the one that it takes the place of."""

log = logging.getLogger(__name__)


def nodes_of_group(world_size: int) -> frozenset[str]:
    """The nodes that the workers are on; every rank must call it."""
    return frozenset(gather_objects(ray.get_runtime_context().get_node_id(), world_size))


def share_on_nodes(make: Callable[[], np.ndarray], session: Session, nodes: frozenset[str]) -> np.ndarray:
    """What rank 0 makes, on all workers; every rank must call it.

    A read-only view of the node's object store; torch, which does not ask, would write into it for all. Where a store
    is too small each worker gets a copy of its own, and a warning says why.

    Args:
        make: called on rank 0 alone.
        nodes: of the workers.
    """
    values = make() if session.rank == 0 else None
    kept = [] if values is None else _kept(values, _smallest_store(nodes))
    # Here a worker that hangs is waited for as long as anywhere in training; Ray's broadcast would wait for ever.
    if not agree(session.rank > 0 or bool(kept), session):
        return cast(np.ndarray, from_first(lambda: values, session.world_size))
    # Inside a list a reference travels as a reference, through Ray alone, which then knows who still needs the array.
    kept = ray.train.collective.broadcast_from_rank_zero(kept)
    return cast(np.ndarray, ray.get(kept[0]))


def _kept(values: np.ndarray, store_bytes: float) -> list[Any]:
    """The array's reference in the object store; nothing where that is too small."""
    if GENERATIONS * values.nbytes <= store_bytes:
        try:
            return [ray.put(values)]
        except (ObjectStoreFullError, OutOfDiskError):
            pass
    log.warning(
        "%s, and the one before it, do not fit into the smallest object store of the workers' nodes (%s): every worker "
        "keeps a copy of its own. Start each node by `ray start` with a larger --object-store-memory",
        f"what is known of all images ({values.nbytes / 1e9:.3g} GB)",
        f"{store_bytes / 1e9:.3g} GB",
    )
    return []


def _smallest_store(nodes: Iterable[str]) -> float:
    """Bytes of the smallest object store of these nodes; 0 where none is known."""
    sizes = (each["Resources"].get("object_store_memory", 0.0) for each in ray.nodes() if each["NodeID"] in nodes)
    return min(sizes, default=0.0)
