"""What fits on the nodes of a Ray cluster, counted node by node as Ray places it.

Knows nodes by what they offer only, so that it can be checked without a cluster.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

TOLERANCE = 1e-6


@dataclass(frozen=True)
class Bundle:
    """What one process needs, on one node."""

    cpus: float
    gpus: float = 0.0
    """Whole GPUs, or a fraction of one."""

    def __str__(self) -> str:
        parts = [f"{amount:g} {name}{'' if amount == 1 else 's'}" for name, amount in self._named() if amount]
        return " and ".join(parts) or "nothing"

    def _named(self) -> tuple[tuple[str, float], ...]:
        return ("CPU", self.cpus), ("GPU", self.gpus)


@dataclass(frozen=True)
class Node:
    """What a node has free."""

    cpus: float
    gpus: tuple[float, ...] = ()
    """The free share of each GPU: Ray never joins the rests of two for one process."""
    labels: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __str__(self) -> str:
        return str(Bundle(self.cpus, sum(self.gpus)))

    def count(self, bundle: Bundle) -> float:
        """How many such bundles fit; infinitely many that need nothing."""
        counts = [math.inf]
        if bundle.cpus > 0:
            counts.append(math.floor((self.cpus + TOLERANCE) / bundle.cpus))
        if bundle.gpus >= 1:
            counts.append(sum(share > 1 - TOLERANCE for share in self.gpus) // math.ceil(bundle.gpus - TOLERANCE))
        elif bundle.gpus > 0:
            counts.append(sum(math.floor((share + TOLERANCE) / bundle.gpus) for share in self.gpus))
        return min(counts)

    def less(self, bundle: Bundle) -> "Node":
        """What is left beside one bundle; a fraction of a GPU comes from the fullest GPU that has it, as in Ray.

        Raises:
            ValueError: it does not fit.
        """
        if self.count(bundle) < 1:
            raise ValueError(f"{bundle} do not fit on a node with {self}")
        shares = sorted(self.gpus)
        if bundle.gpus >= 1:
            del shares[-math.ceil(bundle.gpus - TOLERANCE) :]
        elif bundle.gpus > 0:
            chosen = next(number for number, share in enumerate(shares) if share > bundle.gpus - TOLERANCE)
            shares[chosen] -= bundle.gpus
        return Node(self.cpus - bundle.cpus, tuple(shares), self.labels)

    def more(self, bundle: Bundle, count: int) -> "Node":
        """With what so many bundles of whole GPUs give back."""
        return Node(
            self.cpus + count * bundle.cpus, (*self.gpus, *(1.0,) * round(count * bundle.gpus)), self.labels
        )  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Equal processes that must all run at the same time."""

    size: int
    bundle: Bundle
    name: str = "process"

    def __str__(self) -> str:
        return f"{self.size} {self.name}{'' if self.size == 1 else 's'} of {self.bundle}"

    @property
    def cpus(self) -> float:
        return self.size * self.bundle.cpus

    @property
    def gpus(self) -> float:
        return self.size * self.bundle.gpus


NOTHING = Group(0, Bundle(0.0))


def count_groups(nodes: Sequence[Node], group: Group, *, beside: Group = NOTHING, on: Sequence[bool] = ()) -> float:
    """How many such groups run at once, whatever way Ray places the processes that are there before them.

    Those are dealt round the nodes that have room, from any node on (strategy SPREAD), and stay where they are. Equal
    bundles then fit as often as the sum over nodes says: there is no better order.

    Args:
        nodes: all that the cluster has, when nothing runs.
        group: its processes may be on one node or on several.
        beside: started before, once.
        on: for each node whether `beside` may be there; by default all.

    Returns:
        0 where not even one fits, or where `beside` itself does not; infinity where the group needs nothing.
    """
    allowed = [number for number in range(len(nodes)) if not on or on[number]]
    if beside.size and sum(nodes[number].count(beside.bundle) for number in allowed) < beside.size:
        return 0
    whole = [node.count(group.bundle) for node in nodes]
    fewest = sum(whole)
    # From which node on they are dealt makes no difference where all are alike.
    starts = range(len(allowed)) if len({(nodes[number], whole[number]) for number in allowed}) > 1 else range(1)
    for start in starts if beside.size and fewest < math.inf else ():
        rest = _deal(nodes, beside, [*allowed[start:], *allowed[:start]])
        lost = sum(whole[number] - node.count(group.bundle) for number, node in rest.items())
        fewest = min(fewest, sum(whole) - lost)
    return fewest if fewest == math.inf or not group.size else fewest // group.size


def _deal(nodes: Sequence[Node], group: Group, order: Sequence[int]) -> dict[int, Node]:
    """Deal a group that fits round the nodes in this order; returns those that took some, with what they have left."""
    rest: dict[int, Node] = {}
    left = group.size
    while left:
        for number in order:
            node = rest.get(number, nodes[number])
            if left and node.count(group.bundle) >= 1:
                rest[number], left = node.less(group.bundle), left - 1
    return rest


def describe(nodes: Sequence[Node]) -> str:
    """What the nodes offer, equal ones counted: `2 nodes of 8 CPUs and 1 GPU, 1 node of 4 CPUs`."""
    kinds = Counter(str(node) for node in nodes)
    return ", ".join(f"{count} node{'' if count == 1 else 's'} of {kind}" for kind, count in kinds.items())
