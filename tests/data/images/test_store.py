"""`data.store: memmap`: decoded once, bit-equal, whole or not at all."""

import errno
import os
import pickle
import shutil
import threading
import time
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.config import parse_config
from clray.config.sections import DataConfig
from clray.data.images import encoded, store, streamed
from clray.data.images.decode import BadImageError
from clray.data.images.stored import StoredImages
from clray.data.load import load_dataset, load_images
from clray.data.loaders import ordered_batches, shard_indices, training_batches
from clray.data.samples import Dataset, Samples
from clray.errors import UserError
from tests.conftest import png

SIZE, COUNT = 128, 40


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BLOCK_BYTES", 10 * 3 * SIZE**2)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the images that are decoded, one entry each time."""
    names: list[str] = []
    for module in (encoded, streamed):
        original = module.decode_payload

        def counted(payload: object, name: str, rules: object, original: object = original) -> np.ndarray:
            names.append(name)
            return original(payload, name, rules)

        monkeypatch.setattr(module, "decode_payload", counted)
    return names


def folder_config(tmp_path: Path, **changes: object) -> DataConfig:
    """More images than memory holds, in files of their own."""
    photos = tmp_path / "photos"
    for part in ("train", "test"):
        if not (photos / part).exists():
            (photos / part).mkdir(parents=True)
            for i in range(COUNT):
                (photos / part / f"{i:02d}.png").write_bytes(png(i + 100 * (part == "test")))
    settings = {"image_size": SIZE, "memory_limit_mib": 1, "store": "memmap", "cache_path": str(tmp_path / "cache")}
    return DataConfig(name="imagefolder", train_path=str(photos), **{**settings, **changes})


def parquet_config(tmp_path: Path, **changes: object) -> DataConfig:
    """Parquet beyond memory, which is streamed."""
    photos = tmp_path / "parquet"
    photos.mkdir(exist_ok=True)
    for part in ("train", "test"):
        table = pa.table({"image": [png(i, size=100) for i in range(COUNT)]})
        pq.write_table(table, photos / f"{part}.parquet", row_group_size=7, compression=None, use_dictionary=False)
    settings = {"image_size": SIZE, "memory_limit_mib": 1, "store": "memmap", "cache_path": str(tmp_path / "cache")}
    return DataConfig(name="parquet", train_path=str(photos), shuffle_row_groups=2, **{**settings, **changes})


def pixels_of(samples: Samples, config: DataConfig) -> np.ndarray:
    batches = ordered_batches(samples, np.arange(len(samples)), batch_size=16, config=config)
    return np.concatenate([pixels.numpy() for pixels, _ in batches])


def files_of(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / store.FOLDER).glob(f"*{store.PIXELS}"))


def stored(data: Dataset) -> StoredImages:
    assert isinstance(data.train.images, StoredImages)
    return data.train.images


def test_an_epoch_is_bit_equal_to_one_that_decodes_while_training(tmp_path: Path) -> None:
    config = folder_config(tmp_path)
    plain = config.model_copy(update={"store": "decode"})
    epochs = []
    for each in (config, plain):
        train = load_dataset(each).train
        (_, shard) = shard_indices(train, 2)
        order = train.images.order(shard, np.random.default_rng(3), each)
        batches = list(training_batches(train, order, batch_size=6, steps=3, config=each))
        epochs.append([(pixels.numpy().tobytes(), rows.tolist()) for pixels, rows in batches])
    assert epochs[0] == epochs[1]
    assert load_dataset(config).train.images.names() == load_dataset(plain).train.images.names()


@pytest.mark.parametrize("make", [folder_config, parquet_config])
def test_images_are_decoded_once_for_all_runs(tmp_path: Path, make: object, decoded: list[str]) -> None:
    config = make(tmp_path)
    data = load_dataset(config)
    assert not data.train.images.is_sequential
    assert len(files_of(tmp_path)) == 2
    assert any("decoded images are read from" in note and "0.00366 GiB" in note for note in data.notes)
    assert set(decoded) >= set(data.train.images.names())
    plain = config.model_copy(update={"store": "decode"})
    expected = pixels_of(load_dataset(plain).train, plain)
    decoded.clear()
    again = load_dataset(config)
    assert np.array_equal(pixels_of(again.train, config), expected)
    assert len(decoded) <= 2  # the first of each part, for its size
    chosen = again.train.select(np.array([30, 2]))
    assert np.array_equal(pixels_of(chosen, config), expected[[30, 2]])
    assert chosen.images.name(0) == again.train.images.name(30)


def test_what_changes_the_pixels_makes_another_store(tmp_path: Path) -> None:
    config = folder_config(tmp_path)
    key = stored(load_dataset(config)).store.key
    for changes in ({"background": "black"}, {"image_size": 130}, {"max_train_images": 35}):
        assert stored(load_dataset(config.model_copy(update=changes))).store.key != key
    for changes in ({"num_decoders": 3}, {"on_bad_image": "skip"}, {"validation_fraction": 0.5}):
        assert stored(load_dataset(config.model_copy(update=changes))).store.key == key
    (tmp_path / "photos" / "train" / "03.png").write_bytes(png(77))
    data = load_dataset(config)
    plain = config.model_copy(update={"store": "decode"})
    assert stored(data).store.key != key
    assert np.array_equal(pixels_of(data.train, config), pixels_of(load_dataset(plain).train, plain))


def test_bytes_in_memory_are_their_own_key(tmp_path: Path) -> None:
    """Parquet that fits in memory encoded, and not decoded."""
    keys = []
    for last in (1, 2, 1):
        folder = tmp_path / f"{len(keys)}"
        folder.mkdir()
        for part in ("train", "test"):
            table = pa.table({"image": [*(png(i) for i in range(COUNT)), png(1000 + last)]})
            pq.write_table(table, folder / f"{part}.parquet")
        config = DataConfig(
            name="parquet", train_path=str(folder), image_size=SIZE, memory_limit_mib=1, store="memmap",
            cache_path=str(tmp_path / "cache"))  # fmt: skip
        keys.append(stored(load_dataset(config)).store.key)
    assert keys[0] == keys[2] != keys[1]


def test_a_kill_in_between_loses_a_block_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded: list[str]
) -> None:
    config = folder_config(tmp_path, num_decoders=1)
    fsync, calls = os.fsync, []

    def killed(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 3:
            raise KeyboardInterrupt
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killed)
        with pytest.raises(KeyboardInterrupt):
            load_dataset(config)
    assert files_of(tmp_path) == []
    decoded.clear()
    data = load_dataset(config)
    names = data.train.images.names()
    assert set(names[:20]) & set(decoded) == {names[0]}  # looked at for its size
    plain = config.model_copy(update={"store": "decode"})
    assert np.array_equal(pixels_of(data.train, config), pixels_of(load_dataset(plain).train, plain))
    left = {path.suffix for path in files_of(tmp_path)[0].parent.iterdir()}
    assert left == {store.PIXELS, store.ABOUT}


@pytest.mark.parametrize("damage", ["about", "partial", "pixels"])
def test_damaged_files_are_made_again(tmp_path: Path, damage: str) -> None:
    config = folder_config(tmp_path)
    expected = pixels_of(load_dataset(config).train, config)
    for path in files_of(tmp_path):
        if damage == "about":
            path.with_suffix(store.ABOUT).write_text("{")
        elif damage == "partial":
            path.rename(path.with_suffix(store.PARTIAL))
            os.truncate(path.with_suffix(store.PARTIAL), 1000)
        else:
            os.truncate(path, 1000)
    store._opened.cache_clear()
    assert np.array_equal(pixels_of(load_dataset(config).train, config), expected)


def test_a_node_that_lacks_the_file_makes_it(tmp_path: Path) -> None:
    config = folder_config(tmp_path)
    data = load_dataset(config)
    expected = pixels_of(data.train, config)
    sent = pickle.dumps(data.train)
    shutil.rmtree(tmp_path / "cache")
    store._opened.cache_clear()
    assert len(sent) < 100_000
    assert np.array_equal(pixels_of(pickle.loads(sent), config), expected)


def test_two_at_once_decode_each_image_once(tmp_path: Path, decoded: list[str]) -> None:
    config = folder_config(tmp_path)
    barrier = threading.Barrier(2)

    def load(_: int) -> Dataset:
        barrier.wait()
        return load_dataset(config)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(load, range(2))
    assert np.array_equal(pixels_of(first.train, config), pixels_of(second.train, config))
    assert len(decoded) <= 2 * COUNT + 4


def test_bad_images_are_named_or_left_out(tmp_path: Path) -> None:
    config = folder_config(tmp_path)
    whole = pixels_of(load_dataset(config).train, config)
    bad = tmp_path / "photos" / "train" / "25.png"
    bad.write_bytes(bad.read_bytes()[:100])
    for _ in range(2):
        with pytest.raises(BadImageError, match=r"25\.png: cannot decode the image"):
            load_dataset(config)
    for _ in range(2):
        data = load_dataset(config.model_copy(update={"on_bad_image": "skip"}))
        assert len(data.train) == COUNT - 1
        assert np.array_equal(pixels_of(data.train, config), np.delete(whole, 25, axis=0))
        assert len(data.skipped) == 1
    with pytest.raises(BadImageError, match=r"25\.png: cannot decode the image"):
        load_dataset(config)


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = folder_config(tmp_path)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(1, 1, 1000))
        with pytest.raises(UserError, match=r"data\.cache_path: .*cache is full: the decoded images take 0.00183 GiB"):
            load_dataset(config)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"data\.cache_path: .*cache is full"):
            load_dataset(config)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.cache_path: .*file cannot be written"):
        load_dataset(config.model_copy(update={"cache_path": str(tmp_path / "file")}))
    assert len(load_dataset(config).train) == COUNT


def test_the_bound_holds_and_what_nobody_used_makes_room(tmp_path: Path) -> None:
    bound = 2.5 * COUNT * 3 * SIZE**2 / 2**30
    config = folder_config(tmp_path, cache_limit_gib=bound)
    load_dataset(config)
    first = files_of(tmp_path)
    other = config.model_copy(update={"background": "black"})
    with pytest.raises(UserError, match=r"others of the last hour 0\.00366 GiB, more than data\.cache_limit_gib"):
        load_dataset(other)
    for path in first:
        os.utime(path, (time.time() - 7200,) * 2)
    load_dataset(other)
    assert not set(first) & set(files_of(tmp_path))
    assert len(list(files_of(tmp_path)[0].parent.iterdir())) == 4


def test_a_store_that_is_read_for_hours_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its epoch may be longer than what is unused is kept."""
    config = folder_config(tmp_path, cache_limit_gib=2.5 * COUNT * 3 * SIZE**2 / 2**30)
    images = load_dataset(config).train.images
    batches, now = images.batches([np.array([0]), np.array([1])] * 20, config), time.monotonic()
    next(batches)
    for path in files_of(tmp_path):
        os.utime(path, (time.time() - 7200,) * 2)
    monkeypatch.setattr(time, "monotonic", lambda: now + 7200)
    assert len(list(batches)) == 39
    with pytest.raises(UserError, match="others of the last hour"):
        load_dataset(config.model_copy(update={"background": "black"}))


def test_what_fits_in_memory_or_is_read_once_makes_no_file(tmp_path: Path) -> None:
    assert load_dataset(folder_config(tmp_path, memory_limit_mib=100)).train.images.is_decoded
    assert len(load_images(folder_config(tmp_path)).images) == COUNT
    assert not (tmp_path / "cache").exists()


def test_a_store_needs_a_size_and_images(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.image_size is required"):
        load_dataset(parquet_config(tmp_path, image_size=None))
    section = {"name": "embeddings", "train_path": "v.npy", "store": "memmap"}
    with pytest.raises(UserError, match=r"store: data\.name=embeddings are vectors"):
        parse_config({"data": section}, "test")
