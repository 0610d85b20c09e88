"""What fits on nodes: held to a search of every way to place processes, and to simulated placements."""

import itertools
import math
import random
import time
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clray.ray_runtime.room import NOTHING, Bundle, Group, Node, count_groups, describe

SIZES = [0.0, 0.1, 0.5, 0.6, 1.0, 2.0]
bundles = st.builds(Bundle, st.sampled_from(SIZES), st.sampled_from(SIZES)).filter(lambda each: each.cpus or each.gpus)
nodes = st.builds(
    Node, st.sampled_from([0.0, 1.0, 2.0, 3.0]), st.sampled_from([(), (1.0,), (1.0, 1.0), (1.0, 1.0, 1.0)])
)
clusters = st.lists(nodes, min_size=1, max_size=3).map(tuple)


def ways(node: Node, bundle: Bundle) -> list[Node]:
    """Every state of a node after it has taken one bundle, by trying each GPU."""
    if bundle.cpus > node.cpus + 1e-6:
        return []
    left = node.cpus - bundle.cpus
    if bundle.gpus == 0:
        return [Node(left, node.gpus)]
    if bundle.gpus < 1:
        fitting = [number for number, share in enumerate(node.gpus) if share >= bundle.gpus - 1e-6]
        shares = [
            tuple(share - bundle.gpus * (number == chosen) for number, share in enumerate(node.gpus))
            for chosen in fitting
        ]
        return [Node(left, each) for each in shares]
    whole = [number for number, share in enumerate(node.gpus) if share > 1 - 1e-6]
    return [
        Node(left, tuple(share for number, share in enumerate(node.gpus) if number not in chosen))
        for chosen in itertools.combinations(whole, int(bundle.gpus))
    ]


def tidy(state: tuple[Node, ...]) -> tuple[Node, ...]:
    """Equal states as equal keys: rounded, GPUs in order."""
    return tuple(Node(round(each.cpus, 6), tuple(sorted(round(share, 6) for share in each.gpus))) for each in state)


@cache
def most_by_search(state: tuple[Node, ...], bundle: Bundle) -> int:
    after = {
        tidy((*state[:number], each, *state[number + 1 :]))
        for number, node in enumerate(state)
        for each in ways(node, bundle)
    }
    return max((1 + most_by_search(each, bundle) for each in after), default=0)


small = st.tuples(st.lists(nodes, min_size=1, max_size=2).map(tuple), bundles).filter(
    lambda pair: sum(each.cpus + len(each.gpus) for each in pair[0]) / (pair[1].cpus + pair[1].gpus) <= 10
)


@settings(max_examples=150, deadline=None)
@given(small, st.integers(1, 3))
def test_as_many_groups_fit_as_a_search_of_every_placement_finds(
    case: tuple[tuple[Node, ...], Bundle], size: int
) -> None:
    cluster, bundle = case
    assert count_groups(cluster, Group(size, bundle)) == most_by_search(tidy(cluster), bundle) // size


@settings(max_examples=200, deadline=None)
@given(clusters, bundles, st.integers(1, 3), bundles, st.integers(1, 3), st.integers(0, 2))
def test_so_many_groups_find_room_wherever_the_dealing_of_the_shards_begins(
    cluster: tuple[Node, ...], worker: Bundle, size: int, shard: Bundle, num_shards: int, first: int
) -> None:
    count = count_groups(cluster, Group(size, worker), beside=Group(num_shards, shard))
    state, left, number = list(cluster), num_shards, first
    for _ in range(len(state) * (num_shards + 1)):
        node = state[number % len(state)]
        if left and node.count(shard) >= 1:
            state[number % len(state)], left = node.less(shard), left - 1
        number += 1
    if left:
        assert count == 0, "the shards themselves do not fit"
        return
    for _ in range(int(count) * size):
        chosen = next((number for number, node in enumerate(state) if node.count(worker) >= 1), None)
        assert chosen is not None, f"{count} groups were promised"
        state[chosen] = state[chosen].less(worker)


@settings(max_examples=100, deadline=None)
@given(clusters, bundles, bundles, st.integers(1, 3))
def test_the_order_of_the_nodes_makes_no_difference_and_shards_never_make_room(
    cluster: tuple[Node, ...], worker: Bundle, shard: Bundle, num_shards: int
) -> None:
    group, beside = Group(1, worker), Group(num_shards, shard)
    found = {count_groups(each, group, beside=beside) for each in itertools.permutations(cluster)}
    # Two shards on three nodes leave other neighbours in another order.
    assert max(found) <= count_groups(cluster, group)
    if num_shards == 1:
        assert len(found) == 1


@pytest.mark.parametrize(
    ("cluster", "group", "beside", "expected"),
    [
        ([Node(1, (1.0,))] * 2, Group(1, Bundle(2, 2)), NOTHING, 0),
        ([Node(1, (1.0,))] * 2, Group(2, Bundle(1, 1)), NOTHING, 1),
        ([Node(8), Node(8)], Group(1, Bundle(8)), Group(1, Bundle(0.1)), 1),
        ([Node(8), Node(8)], Group(1, Bundle(8)), Group(2, Bundle(0.1)), 0),
        ([Node(8, (1.0, 1.0))], Group(1, Bundle(1, 0.6)), NOTHING, 2),
        ([Node(8, (1.0, 1.0))], Group(1, Bundle(1, 1)), Group(1, Bundle(0, 0.5)), 1),
        ([Node(4)], Group(1, Bundle(1)), Group(2, Bundle(0, 1)), 0),
        ([Node(0.3)], Group(3, Bundle(0.1)), NOTHING, 1),
    ],
    ids=["totals", "spread", "other-node", "both-nodes", "fraction", "broken-gpu", "no-shards", "rounding"],
)
def test_what_totals_would_get_wrong(cluster: list[Node], group: Group, beside: Group, expected: int) -> None:
    assert count_groups(cluster, group, beside=beside) == expected


def test_shards_held_to_other_nodes_leave_the_workers_theirs() -> None:
    cluster = [Node(8, (1.0,)), Node(8, (1.0,)), Node(4)]
    workers, shards = Group(2, Bundle(8, 1)), Group(2, Bundle(1))
    assert count_groups(cluster, workers, beside=shards) == 0
    assert count_groups(cluster, workers, beside=shards, on=[False, False, True]) == 1


def test_a_thousand_unequal_nodes_are_counted_within_a_second() -> None:
    cluster = [Node(64 + number % 7, (1.0,) * 8) for number in range(1000)]
    start = time.process_time()
    assert count_groups(cluster, Group(512, Bundle(8, 1)), beside=Group(64, Bundle(4))) == 15
    assert time.process_time() - start < 1


def test_nodes_are_described_by_kind() -> None:
    assert describe([Node(8, (1.0,)), Node(4), Node(8, (1.0,))]) == "2 nodes of 8 CPUs and 1 GPU, 1 node of 4 CPUs"


@pytest.mark.parametrize("seed", range(8))
def test_what_is_promised_on_64_nodes_is_there_while_ten_of_them_are_lost(seed: int) -> None:
    """Shards are dealt as Ray spreads them, on the nodes with their label; then workers are put wherever they fit."""
    draw = random.Random(seed)
    left = [
        Node(draw.choice([2.0, 4.0, 8.0]), (1.0,) * draw.choice([0, 1, 4]), {"pool": draw.choice(["a", "b"])})
        for _ in range(64)
    ]
    shards, workers = Group(16, Bundle(1.0), "shard"), Group(8, Bundle(1.0, draw.choice([0.0, 0.5, 1.0])), "worker")
    before = math.inf
    for _ in range(11):
        on = [node.labels["pool"] == "a" for node in left]
        promised = count_groups(left, workers, beside=shards, on=on)
        assert promised <= before, "a lost node makes no room"
        allowed = [number for number, each in enumerate(on) if each]
        first = draw.randrange(len(allowed))
        state, placed = list(left), 0
        while placed < shards.size:
            for number in [*allowed[first:], *allowed[:first]]:
                if placed < shards.size and state[number].count(shards.bundle) >= 1:
                    state[number], placed = state[number].less(shards.bundle), placed + 1
        found = 0
        draw.shuffle(state)
        for node in state:
            while node.count(workers.bundle) >= 1:
                node, found = node.less(workers.bundle), found + 1
        assert found // workers.size >= promised > 0
        before = promised
        left.pop(draw.randrange(len(left)))
