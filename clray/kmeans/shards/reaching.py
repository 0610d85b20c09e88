"""Calls to actors: what they raise as errors of one's own, and waiting for one that is out of reach."""

import time
from collections.abc import Callable
from functools import partial
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
        purpose: as for `Watch.get`.

    Raises:
        UserError, ShardError: as for `fetch` and `Watch.get`.
    """
    lost_since = None
    while True:
        began = time.monotonic()
        try:
            results: list[Any] = fetch(start(), partial(watch.get, purpose=purpose))
            return results
        except ShardError as error:
            now = time.monotonic()
            # Calls that ran for longer than a loss may last had reached their actors: this loss is another.
            if lost_since is None or now - began > LOST_NODE_SECONDS:
                lost_since = now
            if not error.is_out_of_reach or now - lost_since > LOST_NODE_SECONDS:
                raise
            time.sleep(1.0)


def fetch(refs: Any, get: Callable[[Any], Any] = ray.get) -> Any:
    """`ray.get`, with the error of the remote code itself instead of a nest of remote tracebacks.

    Args:
        get: in place of `ray.get`.

    Raises:
        UserError: raised by the remote code.
        ShardError: an actor that died again and again.
    """
    try:
        return get(refs)
    except RayTaskError as error:
        cause = error.cause
        while isinstance(cause, RayTaskError):
            cause = cause.cause
        if isinstance(cause, UserError):
            raise type(cause)(str(cause)) from None
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
