"""Nodes of a joined Ray cluster that are lost while the work runs: told at once, for going on takes a while."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray

from clray.ray_runtime.following import looked_at

CHECK_SECONDS = 5.0
UNEXPECTED = (2, "UNEXPECTED_TERMINATION")
"""Ray's reason for the end of a node that nobody asked to end, by number or name."""


@contextmanager
def nodes_watched(say: Callable[[str], None]) -> Iterator[None]:
    """Tell of each node of the cluster that is lost while the block runs, from another thread.

    Nodes that end as they were asked to, by whoever scales the cluster, are not told.
    """
    if not os.environ.get("RAY_ADDRESS") or not ray.is_initialized():
        yield
        return
    losses = Losses(ray.nodes())

    def look() -> None:
        if ray.is_initialized():
            for line in losses.since(ray.nodes()):
                say(line)

    with looked_at(look, CHECK_SECONDS):
        yield


class Losses:
    """The nodes that were alive when last looked at."""

    def __init__(self, nodes: Sequence[dict[str, Any]]) -> None:
        """Args: `nodes` are those of `ray.nodes()`."""
        self.alive = _alive(nodes)

    def since(self, nodes: Sequence[dict[str, Any]]) -> list[str]:
        """A line for each node that was lost since the last look."""
        before, self.alive = self.alive, _alive(nodes)
        return [
            f"node {each['NodeManagerAddress']} of the Ray cluster is lost, {len(self.alive)} are left; what ran there "
            "is started again on these"
            for each in nodes
            if each["NodeID"] in before - self.alive and each.get("DeathReason") in UNEXPECTED
        ]


def _alive(nodes: Sequence[dict[str, Any]]) -> set[str]:
    return {each["NodeID"] for each in nodes if each["Alive"]}
