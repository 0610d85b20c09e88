import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clray.data.sampling import buffered_order, cluster_order, draw_partners, uniform_order


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 80), st.integers(1, 30), st.integers(2, 6), st.integers(0, 1000))
def test_cluster_order_is_a_permutation_in_runs_of_one_cluster(n: int, k: int, members: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    indices, ids = rng.permutation(1000)[:n], rng.integers(k, size=n)
    order = cluster_order(indices, ids, members, rng)
    assert sorted(order) == sorted(indices)
    of_index = dict(zip(indices, ids, strict=True))
    along = np.array([of_index[i] for i in order])
    num_runs = sum(-(-size // members) for size in np.bincount(ids))
    assert 1 + (along[1:] != along[:-1]).sum() <= num_runs


def test_cluster_order_is_drawn_anew() -> None:
    rng, indices = np.random.default_rng(0), np.arange(72)
    orders = [cluster_order(indices, indices % 6, 3, rng) for _ in range(2)]
    assert not np.array_equal(*orders)
    # Six clusters of twelve: twenty-four runs of three.
    assert all(len(set(order[start : start + 3] % 6)) == 1 for order in orders for start in range(0, 72, 3))


def test_partners_are_drawn_evenly_from_the_cluster() -> None:
    rng = np.random.default_rng(0)
    ids = np.array([0, 1, 0, 1, 1, 2])
    partners = draw_partners(np.repeat(np.arange(6), 3000), ids, rng).reshape(6, 3000)
    for i in range(6):
        counts = np.bincount(partners[i], minlength=6)
        members = np.flatnonzero(ids == ids[i])
        assert counts[members].sum() == 3000
        np.testing.assert_allclose(counts[members] / 3000, 1 / len(members), atol=0.05)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(1, 5), st.integers(0, 1000))
def test_a_buffered_order_needs_few_blocks_at_a_time(sizes: list[int], num_buffered: int, seed: int) -> None:
    blocks = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:-1])
    order = buffered_order(blocks, num_buffered, np.random.default_rng(seed))
    assert sorted(order) == list(range(sum(sizes)))
    block_of = np.repeat(np.arange(len(sizes)), sizes)[order]
    first = {block: place for place, block in reversed(list(enumerate(block_of)))}
    last = {block: place for place, block in enumerate(block_of)}
    for place in range(len(order)):
        assert sum(first[block] <= place <= last[block] for block in first) <= num_buffered


def test_uniform_order_is_a_permutation() -> None:
    assert sorted(uniform_order(np.array([3, 9, 4]), np.random.default_rng(0))) == [3, 4, 9]
