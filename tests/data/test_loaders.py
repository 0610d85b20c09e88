from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clray.config.sections import DataConfig
from clray.data.images.array import ArrayImages
from clray.data.load import load_dataset
from clray.data.loaders import fewest_steps, num_steps, ordered_batches, shard_indices, training_batches
from clray.data.samples import Samples
from tests.conftest import png
from tests.data.test_load import write_parquet


def images(count: int) -> Samples:
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 2), np.uint8)
    return Samples(ArrayImages(pixels), np.zeros(count, np.int64), {})


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_sample_belongs_to_one_worker(world_size: int) -> None:
    shards = shard_indices(images(50), world_size)
    assert sorted(np.concatenate(shards)) == list(range(50))


def test_batches_follow_the_order_given() -> None:
    order = np.array([4, 0, 3, 1, 2])
    batches = training_batches(images(5), order, batch_size=2, steps=2, config=DataConfig())
    assert [indices.tolist() for _, indices in batches] == [[4, 0], [3, 1]]


@pytest.mark.parametrize(("num_samples", "expected"), [(49, 6), (50, 6), (5, 1)])
def test_an_epoch_leaves_out_an_incomplete_batch_unless_it_is_the_only_one(num_samples: int, expected: int) -> None:
    for world_size in (1, 2):
        assert num_steps(shard_indices(images(num_samples), world_size), 8) == expected


@given(st.integers(16, 255), st.integers(1, 4), st.integers(1, 5))
def test_a_range_has_the_steps_of_its_most_workers(num_samples: int, fewest: int, share: int) -> None:
    """So that a run goes on with a range of workers in place of their number, and the reverse."""
    data, most, size = images(num_samples), 4, min(4 * share, num_samples)
    assert fewest_steps(data, range(fewest, most + 1), size) == fewest_steps(data, [most], size)


@given(st.integers(16, 300), st.integers(1, 4), st.integers(0, 4), st.integers(8, 40))
def test_a_group_that_shrinks_or_grows_keeps_its_steps_per_epoch(
    num_samples: int, fewest: int, more: int, batch: int
) -> None:
    """Each size has images for as many steps of its share of the batch, and the rest of the batch is less than it."""
    sizes, samples = range(fewest, fewest + more + 1), images(num_samples)
    batch = min(batch, num_samples)
    steps = fewest_steps(samples, sizes, batch)
    for size in sizes:
        each = batch // size
        assert steps == 1 or all(len(shard) >= steps * each for shard in shard_indices(samples, size))
        assert batch - size * each < size
    assert steps == min(num_steps(shard_indices(samples, size), batch) for size in sizes)


def test_images_come_with_their_own_indices() -> None:
    for pixels, indices in ordered_batches(images(10), np.array([7, 1, 4]), batch_size=2, config=DataConfig()):
        assert pixels[:, 0, 0, 0].tolist() == indices.tolist()


@pytest.mark.slow
def test_images_decoded_while_training_equal_those_decoded_before(tmp_path: Path) -> None:
    config = write_parquet(tmp_path / "t.parquet", [png(i, size=16) for i in range(40)], [0, 1] * 20)
    config = config.model_copy(update={"image_size": 128})
    decoded = load_dataset(config)
    streamed = load_dataset(DataConfig(**(config.model_dump() | {"memory_limit_mib": 1})))
    rows = np.arange(len(decoded.train))
    batches = ordered_batches(streamed.train, rows, batch_size=8, config=config)
    np.testing.assert_array_equal(
        np.concatenate([pixels.numpy() for pixels, _ in batches]), decoded.train.images.pixels
    )
