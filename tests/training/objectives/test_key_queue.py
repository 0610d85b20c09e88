"""The ring against a list of keys, newest first, that is cut off at the end."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from clray.training.objectives.key_queue import KeyQueue

CPU, DIM = torch.device("cpu"), 3
Rows = list[tuple[int, list[float]]]


def rows(keys: Tensor, indices: Tensor) -> Rows:
    """In an order that does not depend on where they lie."""
    return sorted(zip(indices.tolist(), keys.tolist(), strict=True))


def batch(number: int, size: int) -> tuple[Tensor, Tensor]:
    indices = torch.arange(size) + 100 * number
    return indices[:, None] + torch.arange(DIM) / 10, indices


@given(st.integers(1, 12), st.lists(st.integers(1, 5), min_size=1, max_size=12), st.data())
def test_a_ring_holds_what_a_list_would(size: int, batch_sizes: list[int], data: st.DataObject) -> None:
    queue, past = KeyQueue(size, CPU), batch(0, 0)
    for number, batch_size in enumerate(batch_sizes, start=1):
        if data.draw(st.booleans()):
            resumed = KeyQueue(size, CPU)
            resumed.load_state_dict(deepcopy(queue.state_dict()))
            queue = resumed
        newest = batch(number, batch_size)
        queue.push(*newest)
        candidates = tuple(map(torch.cat, zip(newest, past, strict=True)))
        assert rows(*queue.all()) == rows(*candidates)
        older = torch.cat([past[0][:0], *queue.older()])
        torch.testing.assert_close(older, past[0].float(), rtol=0, atol=0)
        past = tuple(each[:size] for each in candidates)


@pytest.mark.parametrize("num_batches", [1, 2, 3, 7])
def test_a_queue_that_is_loaded_lies_in_the_same_rows(num_batches: int) -> None:
    """So that a resumed run adds up its similarities in the same order."""
    queue, resumed = KeyQueue(5, CPU), KeyQueue(5, CPU)
    for number in range(num_batches):
        queue.push(*batch(number, 2))
    resumed.load_state_dict(queue.state_dict())
    for each in (queue, resumed):
        each.push(*batch(num_batches, 2))
    torch.testing.assert_close(resumed.all(), queue.all(), rtol=0, atol=0)


def test_a_checkpoint_from_before_the_ring_holds_the_keys_alone() -> None:
    keys, indices = batch(1, 4)
    queue = KeyQueue(4, CPU)
    queue.load_state_dict({"keys": keys, "key_indices": indices})
    queue.push(*batch(2, 3))
    assert rows(*queue.all()) == rows(*map(torch.cat, zip(batch(2, 3), (keys, indices), strict=True)))
