from pathlib import Path

import numpy as np
import pytest

from clray.config import DataConfig
from clray.data.datasets import ImageSet, load_dataset
from clray.data.loaders import num_steps, ordered_batches, shard_indices, training_batches
from tests.conftest import png
from tests.data.test_datasets import write_parquet

SHUFFLE = {"global_batch_size": 8, "seed": 0, "num_decoders": 0}


def images(count: int) -> ImageSet:
    pixels = np.arange(count, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 2), np.uint8)
    return ImageSet(pixels, np.zeros(count, np.int64), {})


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_every_sample_belongs_to_one_worker(world_size: int) -> None:
    shards = [shard_indices(50, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate(shards)) == list(range(50))


def test_an_epoch_shows_no_sample_twice_and_reshuffles() -> None:
    def epoch(number: int) -> list[int]:
        batches = training_batches(images(50), epoch=number, rank=0, world_size=1, **SHUFFLE)
        return [int(i) for _, indices in batches for i in indices]

    assert len(epoch(0)) == len(set(epoch(0))) == 48
    assert epoch(0) == epoch(0) != epoch(1)


def test_workers_take_the_same_number_of_steps() -> None:
    counts = [len(list(training_batches(images(49), epoch=0, rank=rank, world_size=2, **SHUFFLE))) for rank in range(2)]
    assert counts == [num_steps(49, 8, 2)] * 2


def test_fewer_samples_than_a_batch_still_train() -> None:
    ((pixels, _),) = training_batches(images(5), epoch=0, rank=0, world_size=1, **SHUFFLE)
    assert len(pixels) == 5


def test_images_come_with_their_own_indices() -> None:
    for pixels, indices in ordered_batches(images(10), np.array([7, 1, 4]), batch_size=2, num_decoders=0):
        assert pixels[:, 0, 0, 0].tolist() == indices.tolist()


@pytest.mark.slow
def test_images_decoded_while_training_equal_those_decoded_before(tmp_path: Path) -> None:
    config = write_parquet(tmp_path / "t.parquet", [png(i, size=128) for i in range(40)], [0, 1] * 20)
    config = config.model_copy(update={"image_size": 128})
    decoded = load_dataset(config)
    streamed = load_dataset(DataConfig(**(config.model_dump() | {"memory_limit_mib": 1})))
    rows = np.arange(len(decoded.train))
    batches = ordered_batches(streamed.train, rows, batch_size=8, num_decoders=2)
    np.testing.assert_array_equal(np.concatenate([pixels.numpy() for pixels, _ in batches]), decoded.train.images)
