"""The port between training and the world: who am I, cluster these, here are my metrics and checkpoint.

Training code reports to a Session and nothing else. Knows neither Ray nor MLflow.
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int

from clray.errors import TrainingError
from clray.kmeans.lloyd import Clustering
from clray.training.checkpoint_form import Checkpoint, Snapshot
from clray.training.metrics import Metrics

T = TypeVar("T")
OnReport = Callable[[Metrics], None]
OnStep = Callable[[int, int], None]
"""Hears of the step that begins, from 0, and of the steps per epoch."""
Load = Callable[[Checkpoint], None]
"""Takes a checkpoint over; fails where it does not fit the run."""


class PendingClustering(Protocol):
    """A clustering under way."""

    def ready(self) -> bool:
        """Whether `result` would return at once."""
        ...

    def result(self) -> list[Clustering]:
        """The clustering of each granularity, with the ids of the caller's vectors; waits for it."""
        ...


class Cluster(Protocol):
    """Starts k-means over the embeddings of all workers, for one or more numbers of clusters.

    The ids returned are those of the caller's vectors. `nested` clusters the centroids of the first granularity into
    the next, and so on; `initial` holds the centroids of each granularity to start from.
    """

    def __call__(
        self,
        vectors: Float[np.ndarray, "n dim"],
        num_clusters: tuple[int, ...],
        *,
        nested: bool,
        seed: int,
        initial: list[np.ndarray] | None,
    ) -> PendingClustering: ...


class Session(Protocol):
    """What a run sees of the place where it runs."""

    rank: int
    world_size: int
    device: torch.device
    cluster: Cluster | None

    def restore(self, load: Load, rows: Int[np.ndarray, " n"]) -> bool:
        """Load the newest checkpoint that is whole and fits, the same on all ranks; False for a fresh start.

        Args:
            rows: dataset indices of this worker's samples, ascending.

        Raises:
            UserError: there are checkpoints, but none can be used.
        """
        ...

    def report(self, metrics: Metrics, snapshot: Snapshot | None) -> None:
        """Hand out an epoch's metrics (equal on all ranks), and where one is due what a checkpoint holds.

        Training goes on while it is written; one that is still being written is waited for.

        Raises:
            UserError: the one before could not be written.
        """
        ...

    def share(self, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What rank 0 makes, on all ranks; every rank must call it, and nobody writes into it.

        The workers of a node read one copy where they can.
        """
        ...

    def at_step(self, step: int, steps_per_epoch: int) -> None:
        """Hear that this worker is about to take step `step` of the run, from 0."""
        ...

    def save(self, snapshot: Snapshot) -> None:
        """Hand out what a checkpoint within an epoch holds; as `report`."""
        ...

    def close(self) -> None:
        """Wait for what is being written, once training has ended, in whatever way.

        Raises:
            UserError: it could not be written.
        """
        ...


def gather(values: np.ndarray, world_size: int) -> list[np.ndarray]:
    """The arrays of all workers, by rank; every rank must call it."""
    return gather_objects(values, world_size)


def gather_objects(value: Any, world_size: int) -> list[Any]:
    """What all workers hold, by rank; every rank must call it."""
    if world_size == 1:
        return [value]
    gathered: list[Any] = [None] * world_size
    dist.all_gather_object(gathered, value)
    return gathered


def from_first(compute: Callable[[], T], world_size: int) -> T:
    """What rank 0 computes, for all workers; every rank must call it, and the others wait.

    Raises:
        TrainingError: `compute` raised it; on all ranks alike, so that none waits for another.
    """
    found: T | None = None
    problem: str | None = None
    if world_size == 1:
        return compute()
    if dist.get_rank() == 0:
        try:
            found = compute()
        except TrainingError as error:
            problem = str(error)
    sent: list[Any] = [found, problem]
    dist.broadcast_object_list(sent, src=0)
    if sent[1] is not None:
        raise TrainingError(sent[1])
    return cast(T, sent[0])


def agree(flag: bool, session: Session) -> bool:
    """Whether the flag is set on every worker; every rank must call it.

    The flags stay on the host: on a GPU the answer would wait for all work that it was given.
    """
    if session.world_size == 1:
        return flag
    flags = torch.tensor(int(flag))
    dist.all_reduce(flags, op=dist.ReduceOp.MIN)
    return bool(flags)
