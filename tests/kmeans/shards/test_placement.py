"""Where slices are searched, on nodes that need not exist."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from clray.kmeans.shards.placement import nearest_shards

nodes = st.lists(st.sampled_from("abcd"), min_size=1, max_size=12)


@given(nodes, nodes)
def test_no_shard_takes_more_than_its_share(slices: list[str], shards: list[str]) -> None:
    chosen = nearest_shards(slices, shards)
    assert len(chosen) == len(slices)
    assert max(Counter(chosen).values()) <= -(-len(slices) // len(shards))


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12), st.randoms())
def test_where_each_node_has_its_shards_nothing_moves(slices: list[str], random: object) -> None:
    shards = list(slices)
    random.shuffle(shards)  # type: ignore[attr-defined]
    assert [shards[shard] for shard in nearest_shards(slices, shards)] == slices


def test_a_slice_without_a_shard_near_goes_to_the_least_busy() -> None:
    assert nearest_shards(["c", "a", "a"], ["a", "b"]) == [1, 0, 0]
