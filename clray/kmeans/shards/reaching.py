"""Calls to actors: what they raise as errors of one's own, and waiting for one that is out of reach."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, RayActorError, RayError, RayTaskError

from clray.errors import UserError
from clray.kmeans.shards.waiting import Watch

MAX_REPEATS = 3
LOST_NODE_SECONDS = 120.0
"""How long actors may be out of reach: Ray takes up to a minute to find that a node is lost and to move its actors."""


class ShardError(RuntimeError):
    """A shard actor died more often than it is restarted, or cannot be reached."""

    is_out_of_reach = False


def until_reached(start: Callable[[], list[Any]], watch: Watch, purpose: str) -> list[Any]:
    """Start calls and fetch their results, again and again while an actor is out of reach, as on a lost node.

    Args:
        watch: over the actors.
        purpose: as for `Watch.wait`.

    Raises:
        UserError, ShardError: as for `fetch` and `Watch.wait`.
    """
    deadline = time.monotonic() + LOST_NODE_SECONDS
    while True:
        try:
            started = start()
            watch.wait(started, purpose)
            results: list[Any] = fetch(started)
            return results
        except ShardError as error:
            if not error.is_out_of_reach or time.monotonic() > deadline:
                raise
            time.sleep(1.0)


def fetch(refs: Any) -> Any:
    """`ray.get`, with the error of the remote code itself instead of a nest of remote tracebacks.

    Raises:
        UserError: raised by the remote code.
        ShardError: an actor that died again and again.
    """
    try:
        return ray.get(refs)
    except RayTaskError as error:
        cause = error.cause
        while isinstance(cause, RayTaskError):
            cause = cause.cause
        if isinstance(cause, UserError):
            raise UserError(str(cause)) from None
        if isinstance(cause, RayError):
            raise _shard_error(cause) from None
        raise
    except RayActorError as error:
        raise _shard_error(error) from None


def _shard_error(error: BaseException) -> ShardError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    found = ShardError(
        f"a k-means shard died and could not repeat its part {MAX_REPEATS} times ({lines[-1] if lines else error}). "
        "If its node ran out of memory, lower memory_per_shard or use more shards"
    )
    found.is_out_of_reach = isinstance(error, ActorUnavailableError)
    return found
