"""Where Ray has put an actor, and what the nodes have free for one that it cannot put anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass

import ray
from ray._private import state

from clray.ray_runtime.cluster import connect
from clray.ray_runtime.room import Node


@dataclass(frozen=True)
class Place:
    """Attributes: the node by its id and its address, and the process, by its id there."""

    node: str
    address: str
    process: int

    def __str__(self) -> str:
        return f"process {self.process} on node {self.address}"


def place_of(actor_id: str) -> Place | None:
    """Where an actor runs; None where Ray is still to put it somewhere, or has nothing to tell.

    Args:
        actor_id: its id, as hexadecimal text.
    """
    found = state.actors(actor_id)
    if found.get("State") != "ALIVE":
        return None
    address = found["Address"]
    return Place(address["NodeID"], address["IPAddress"], found["Pid"])


def free_nodes() -> dict[str, Node]:
    """What each node has free now, by its id, as far as Ray's head has heard of it.

    A node that was just lost is left out before the head knows: nothing answers where its raylet was.
    """
    free = state.available_resources_per_node()
    return {
        node["NodeID"]: _free(free.get(node["NodeID"], {}), node.get("Labels") or {})
        for node in sorted(ray.nodes(), key=lambda node: node["NodeID"])
        if node["Alive"] and _answers(f"{node['NodeManagerAddress']}:{node['NodeManagerPort']}")
    }


def _answers(address: str) -> bool:
    try:
        connect(address)
    except OSError:
        return False
    return True


def _free(resources: Mapping[str, float], labels: Mapping[str, str]) -> Node:
    """A rest of a GPU is taken for that of one alone."""
    gpus = resources.get("GPU", 0.0)
    return Node(resources.get("CPU", 0.0), (1.0,) * int(gpus) + ((gpus % 1,) if gpus % 1 else ()), labels)
