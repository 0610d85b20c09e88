from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.config.sections import DataConfig
from clray.data.images.streamed import StreamedImages
from clray.data.load import load_dataset
from clray.data.loaders import ordered_batches, shard_indices, training_batches
from clray.data.samples import Samples
from clray.errors import UserError
from tests.conftest import png

SIZE = 96


@pytest.fixture
def config(tmp_path: Path) -> DataConfig:
    """Two files with row groups of ten images, one of them short, and more bytes than the limit."""
    for name, start, count in (("a", 0, 34), ("b", 34, 30)):
        images = [{"bytes": png(i, size=SIZE), "path": None} for i in range(start, start + count)]
        labels = [i % 2 for i in range(start, start + count)]
        pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / f"{name}.parquet", row_group_size=10)
    return DataConfig(
        name="parquet", train_path=str(tmp_path), image_size=SIZE, memory_limit_mib=1, shuffle_row_groups=3
    )


def streamed(config: DataConfig) -> Samples:
    train = load_dataset(config).train
    assert isinstance(train.images, StreamedImages)
    return train


def test_images_read_by_row_groups_equal_those_held_in_memory(config: DataConfig) -> None:
    held = load_dataset(config.model_copy(update={"memory_limit_mib": 100})).train
    train = streamed(config)
    np.testing.assert_array_equal(train.labels, held.labels)
    order = np.random.default_rng(0).permutation(len(train))
    for batches in (
        ordered_batches(train, order, batch_size=7, config=config),
        training_batches(train, order, batch_size=5, steps=3, config=config),
    ):
        for pixels, indices in batches:
            np.testing.assert_array_equal(pixels.numpy(), held.images.pixels[indices.numpy()])


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_a_worker_has_whole_row_groups(config: DataConfig, world_size: int) -> None:
    train = streamed(config)
    shards = shard_indices(train, world_size)
    np.testing.assert_array_equal(np.concatenate(shards), np.arange(len(train)))
    for block in train.images.blocks():
        assert sum(np.isin(block, shard).all() for shard in shards) == 1
    sizes = [len(shard) for shard in shards]
    assert max(sizes) - min(sizes) <= 10


def test_a_bad_image_is_named_or_left_out(config: DataConfig, tmp_path: Path) -> None:
    table = pq.read_table(tmp_path / "b.parquet").to_pydict()
    table["image"][3] = {"bytes": b"no image", "path": None}
    pq.write_table(pa.table(table), tmp_path / "b.parquet", row_group_size=10)
    everything = config.model_copy(update={"test_path": str(tmp_path / "a.parquet")})
    train = streamed(everything)
    with pytest.raises(UserError, match=r"b\.parquet, row 3: cannot decode the image"):
        list(ordered_batches(train, np.arange(len(train)), batch_size=8, config=config))
    data = load_dataset(everything.model_copy(update={"on_bad_image": "skip"}))
    assert len(data.train) == 63
    assert "b.parquet, row 3:" in data.skipped[0]


def test_row_groups_that_exceed_the_memory_are_refused_with_the_figures(config: DataConfig) -> None:
    with pytest.raises(UserError, match=r"row group 0 holds 0 MiB of images, and data\.shuffle_row_groups=99"):
        load_dataset(config.model_copy(update={"shuffle_row_groups": 99}))
