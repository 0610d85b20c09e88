"""A failure of one worker that all workers hear of at once, so that none waits for it until its time is up."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import torch
import torch.distributed as dist

from clray.errors import TrainingError, UserError
from clray.kmeans.messages import LEADER, counts_of_all

T = TypeVar("T")


class HeardByAllError(Exception):
    """Every worker has heard of a failure.

    Attributes:
        error: what each raises for it; where it happened, what was raised there.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


def computed_by_all(compute: Callable[[], T], device: torch.device) -> T:
    """What this worker computes, once every worker has computed its part; all must call it.

    Raises:
        HeardByAllError: it failed on one of them.
    """
    found: list[T] = []
    own: Exception | None = None
    try:
        found.append(compute())
    except Exception as error:
        own = error
    if any(counts_of_all(int(own is not None), device)):
        told: list[tuple[bool, str] | None] = [None] * dist.get_world_size()
        dist.all_gather_object(told, None if own is None else described(own, dist.get_rank()))
        raise HeardByAllError(own or next(as_error(*each) for each in told if each is not None))
    return found[0]


def described(error: Exception, rank: int = LEADER) -> tuple[bool, str]:
    """Whether the user can put the error of a worker right, and what the other workers say of it."""
    is_users = isinstance(error, UserError)
    return is_users, str(error) if is_users else f"k-means failed on worker {rank}: {type(error).__name__}: {error}"


def as_error(is_users: bool, text: str) -> Exception:
    """What was `described`, to be raised by another worker."""
    return UserError(text) if is_users else TrainingError(text)


def as_arrays(is_users: bool, text: str) -> list[np.ndarray]:
    """What was `described`, as it can be sent."""
    return [np.array([is_users], np.uint8), np.frombuffer(text.encode(), np.uint8)]


def from_arrays(arrays: list[np.ndarray]) -> Exception:
    """The error that was sent as arrays."""
    is_users, text = arrays
    return as_error(bool(is_users[0]), bytes(text).decode())
