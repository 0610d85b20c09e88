"""Which shard searches which vectors, and what then crosses the network.

Knows nodes by their names only, so that it can be checked without a cluster.
"""

import math
from collections import Counter
from collections.abc import Sequence


def nearest_shards(slice_nodes: Sequence[str], shard_nodes: Sequence[str]) -> list[int]:
    """The shard of each slice: one on the slice's own node where there is one with room, else the least busy.

    No shard takes more than its share of the slices, so that a node that holds all the vectors does not search alone.
    """
    room = math.ceil(len(slice_nodes) / len(shard_nodes))
    load = Counter[int]()
    chosen: dict[int, int] = {}
    for number, node in enumerate(slice_nodes):
        near = [shard for shard, its_node in enumerate(shard_nodes) if its_node == node and load[shard] < room]
        if near:
            chosen[number] = min(near, key=lambda shard: load[shard])
            load[chosen[number]] += 1
    for number in range(len(slice_nodes)):
        if number not in chosen:
            chosen[number] = min(range(len(shard_nodes)), key=lambda shard: load[shard])
            load[chosen[number]] += 1
    return [chosen[number] for number in range(len(slice_nodes))]


def crossing(nodes: Sequence[str], home: str) -> int:
    """How many of them are not `home`."""
    return sum(node != home for node in nodes)
