from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torchvision

from clray.config.sections import DataConfig
from clray.data.images.encoded import EncodedImages
from clray.data.load import check_files, load_dataset
from clray.errors import UserError
from tests.conftest import png


def write_parquet(path: Path, blobs: list[bytes], labels: list[int]) -> DataConfig:
    images = [{"bytes": blob, "path": None} for blob in blobs]
    pq.write_table(pa.table({"image": images, "label": labels, "group": [i % 3 for i in labels]}), path)
    return DataConfig(name="parquet", train_path=str(path))


def test_digits_are_the_same_split_every_time() -> None:
    first, second = load_dataset(DataConfig()), load_dataset(DataConfig())
    assert (len(first.train), len(first.test), first.num_classes, first.num_channels) == (1347, 450, 10, 1)
    np.testing.assert_array_equal(first.train.images.pixels, second.train.images.pixels)
    assert first.train.images.pixels.dtype == np.uint8
    assert first.train.images.pixels.max() == 255


def test_train_and_test_do_not_overlap() -> None:
    data = load_dataset(DataConfig())
    other = load_dataset(DataConfig(split_seed=1))
    assert len(data.train) + len(data.test) == 1797
    assert not np.array_equal(data.test.labels, other.test.labels)


def test_an_undecodable_image_is_named_with_its_row(tmp_path: Path) -> None:
    blobs = [png(i) for i in range(12)]
    blobs[7] = b"not an image"
    config = write_parquet(tmp_path / "t.parquet", blobs, [0, 1] * 6)
    with pytest.raises(UserError, match=r"t\.parquet, row 7: cannot decode the image .*on_bad_image=skip"):
        load_dataset(config)


def test_skipping_bad_images_counts_and_reports_them(tmp_path: Path) -> None:
    blobs = [png(i) for i in range(12)]
    blobs[7] = blobs[7][:30]
    config = write_parquet(tmp_path / "t.parquet", blobs, [0, 1] * 6).model_copy(update={"on_bad_image": "skip"})
    data = load_dataset(config)
    assert len(data.train) + len(data.test) == 11
    assert len(data.skipped) == 1
    assert "row 7" in data.skipped[0]


def test_labels_of_one_class_say_nothing_and_count_as_none(tmp_path: Path) -> None:
    data = load_dataset(write_parquet(tmp_path / "t.parquet", [png(i) for i in range(8)], [3] * 8))
    assert (data.num_classes, data.names[None], set(data.train.labels)) == (0, (), {-1})
    assert "all labelled training images have the label 3" in data.notes[0]


def test_images_of_different_sizes_need_an_image_size(tmp_path: Path) -> None:
    blobs = [png(i, size=8 if i < 5 else 12) for i in range(8)]
    config = write_parquet(tmp_path / "t.parquet", blobs, [0, 1] * 4)
    with pytest.raises(UserError, match=r"set data\.image_size|with data\.image_size"):
        load_dataset(config)
    resized = load_dataset(config.model_copy(update={"image_size": 8}))
    assert resized.train.images.pixels.shape[1:] == (3, 8, 8)


def test_data_larger_than_the_memory_limit_stay_encoded(tmp_path: Path) -> None:
    config = write_parquet(tmp_path / "t.parquet", [png(i, size=16) for i in range(40)], [0, 1] * 20)
    data = load_dataset(config.model_copy(update={"image_size": 128, "memory_limit_mib": 1}))
    assert isinstance(data.train.images, EncodedImages)
    assert len(data.train.images) == len(data.train) == 30


def test_attributes_become_columns_of_codes(tmp_path: Path) -> None:
    data = load_dataset(write_parquet(tmp_path / "t.parquet", [png(i) for i in range(16)], [0, 1] * 8))
    assert set(data.train.columns) == {"group"}
    assert len(data.train.columns["group"]) == len(data.train)


def test_torchvision_data_that_are_not_there_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.name=cifar10: not found .*data\.download=true"):
        load_dataset(DataConfig(name="cifar10", train_path=str(tmp_path)))


def test_an_image_folder_has_a_class_per_folder(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(6):
            (tmp_path / name / f"{i}.png").write_bytes(png(i))
    data = load_dataset(DataConfig(name="imagefolder", train_path=str(tmp_path)))
    assert data.num_classes == 2
    assert len(torchvision.datasets.ImageFolder(tmp_path)) == len(data.train) + len(data.test) == 12


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.train_path: no such file or folder: .*nowhere"):
        check_files(DataConfig(name="csv", train_path=str(tmp_path / "nowhere.csv")))
