"""Images in an array, encoded, and streamed answer one port alike."""

import inspect
import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.config.sections import DataConfig
from clray.data.images.array import ArrayImages
from clray.data.images.decode import PixelRules
from clray.data.images.encoded import EncodedImages
from clray.data.images.port import Images
from clray.data.images.stored import StoredImages
from clray.data.images.streamed import StreamedImages, find_row_groups
from clray.data.images.vectors import VectorImages
from tests.conftest import png

SIZE, COUNT = 16, 23
CONFIG = DataConfig(name="parquet", train_path="t", image_size=SIZE, num_decoders=0, shuffle_row_groups=2)


@pytest.fixture
def kinds(tmp_path: Path) -> dict[str, Images]:
    blobs = [png(i, size=SIZE) for i in range(COUNT)]
    pq.write_table(pa.table({"image": blobs}), tmp_path / "t.parquet", row_group_size=5)
    encoded = EncodedImages.of_bytes(blobs, PixelRules(SIZE), list(map(str, range(COUNT))))
    streamed = StreamedImages(find_row_groups([tmp_path / "t.parquet"], ["image"]), np.arange(COUNT), PixelRules(SIZE))
    return {"array": ArrayImages(np.stack([encoded.decode(i) for i in range(COUNT)])), "encoded": encoded,
            "streamed": streamed}  # fmt: skip


@pytest.mark.parametrize("kind", ["array", "encoded", "streamed"])
def test_every_kind_of_images_gives_the_same_pixels(kinds: dict[str, Images], kind: str) -> None:
    images, pixels = kinds[kind], kinds["array"].pixels
    assert (len(images), images.channels, images.size) == (COUNT, 3, (SIZE, SIZE))
    order = images.order(np.arange(COUNT), np.random.default_rng(0), CONFIG)
    assert sorted(order) == list(range(COUNT))
    for batch, indices in images.batches(np.array_split(order, 4), CONFIG):
        np.testing.assert_array_equal(batch.numpy(), pixels[indices.numpy()])
    chosen = np.array([1, 7, 22])
    ((batch, _),) = images.select(chosen).batches([np.arange(3)], CONFIG)
    np.testing.assert_array_equal(batch.numpy(), pixels[chosen])
    ready = images.ready(CONFIG)
    assert (len(ready.images), ready.kept, ready.reasons) == (COUNT, None, ())
    assert images.bad(2, None) == []
    assert len(images.names()) in (0, COUNT)
    for world_size in (1, 2, 3):
        np.testing.assert_array_equal(np.sort(np.concatenate(images.shards(world_size))), np.arange(COUNT))


@pytest.mark.parametrize("kind", [ArrayImages, EncodedImages, StreamedImages, StoredImages, VectorImages])
def test_every_adapter_has_what_the_port_asks_for(kind: type) -> None:
    for name, member in inspect.getmembers(Images):
        if name.startswith("_") and name != "__len__":
            continue
        assert hasattr(kind, name)
        if inspect.isfunction(member):
            own = inspect.signature(getattr(kind, name)).parameters
            assert list(own) == list(inspect.signature(member).parameters)


def test_files_of_any_name_are_read(tmp_path: Path) -> None:
    """Old names of Latin-1 are no UTF-8, and Arrow's text is."""
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    file.write_bytes(png(1, size=SIZE))
    images = EncodedImages.of_files([file, file], PixelRules(SIZE)).select(np.array([1]))
    assert images.decode(0).shape == (3, SIZE, SIZE)
    assert images.names() == [str(tmp_path / r"caf\udce9.png")]


def test_places_are_handed_to_another_process_small_and_as_few_objects() -> None:
    """300,000 names as Python strings and paths take 241 MB, and seconds to make anew."""
    names = [f"/data/images/class_{i % 100:03d}/photo_{i:06d}.jpg" for i in range(300_000)]
    images = EncodedImages.of_files(names, PixelRules(SIZE))
    sent = pickle.dumps(images, protocol=5)
    before = sys.getallocatedblocks()
    received = pickle.loads(sent)
    assert sys.getallocatedblocks() - before < 1000
    assert len(sent) < 40e6
    assert received.payload(299_999) == Path(names[-1])
