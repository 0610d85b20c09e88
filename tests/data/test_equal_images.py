"""A data set of equal images is told from others, at the cost of two images where they differ."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clray.config.sections import DataConfig
from clray.data.check import check_data
from clray.data.equal_images import notes_on_equal_images
from clray.data.images.array import ArrayImages
from clray.data.load import load_dataset
from tests.conftest import png


def folder_of(root: Path, seeds: list[int]) -> DataConfig:
    for number, seed in enumerate(seeds):
        (root / f"{number:02d}.png").write_bytes(png(seed))
    return DataConfig(name="imagefolder", train_path=str(root), image_size=8)


def test_equal_images_are_said_by_a_run_and_by_the_check_of_data(tmp_path: Path) -> None:
    config = folder_of(tmp_path, [3] * 12)
    (note,) = [note for note in load_dataset(config).notes if "equal" in note]
    assert note.startswith("all 9 training images were compared and are equal, such as ")
    assert f"{tmp_path}/" in note
    assert any("all 12 training images were compared and are equal" in note for note in check_data(config).notes)


def test_one_image_that_differs_is_enough(tmp_path: Path) -> None:
    config = folder_of(tmp_path, [3] * 11 + [4])
    assert not any("equal" in note for note in check_data(config).notes)


@pytest.mark.parametrize("seeds", [[1] * 40, [1] * 39 + [2]])
def test_images_that_stay_in_their_files_are_compared_too(tmp_path: Path, seeds: list[int]) -> None:
    file = tmp_path / "t.parquet"
    blobs = [png(seed, size=256) for seed in seeds]
    pq.write_table(pa.table({"image": blobs}), file, row_group_size=4, compression=None, use_dictionary=False)
    config = DataConfig(name="parquet", train_path=str(file), test_path=str(file), memory_limit_mib=4, image_size=8,
                        shuffle_row_groups=1)  # fmt: skip
    data = load_dataset(config)
    assert data.train.images.is_sequential
    assert any("equal" in note for note in data.notes) == (len(set(seeds)) == 1)


def test_equal_vectors_are_said(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", np.ones((8, 4), np.float32))
    data = load_dataset(DataConfig(name="embeddings", train_path=str(tmp_path / "v.npy")))
    assert any("training vectors were compared and are equal" in note for note in data.notes)


def test_images_that_differ_cost_two() -> None:
    @dataclass(frozen=True)
    class Counted(ArrayImages):
        def each(self, indices: np.ndarray) -> Iterator[np.ndarray]:
            for index in indices:
                asked.append(int(index))
                yield self.pixels[index]

    asked: list[int] = []
    pixels = np.arange(5_000, dtype=np.uint8)[:, None, None, None]
    assert notes_on_equal_images(Counted(pixels)) == []
    assert len(asked) == 2
