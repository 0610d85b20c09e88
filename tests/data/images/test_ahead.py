"""Batches that are decoded ahead in threads."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clray.config.sections import DataConfig
from clray.data.images.ahead import decoded_batches, decoders_of
from clray.data.images.decode import PixelRules
from clray.data.images.encoded import EncodedImages
from clray.errors import UserError
from tests.conftest import png

SHAPE = (3, 2, 2)


def config(decoders: int | None) -> DataConfig:
    return DataConfig(name="csv", train_path="t", num_decoders=decoders, image_size=8)


@pytest.mark.parametrize("decoders", [0, 1, 3])
def test_batches_come_in_order_whichever_thread_is_done_first(decoders: int) -> None:
    generator = np.random.default_rng(0)

    def decoder(index: int) -> Callable[[], np.ndarray]:
        return lambda: (time.sleep(generator.random() / 500), np.full(SHAPE, index, np.uint8))[1]

    chunks = [np.arange(at, at + 20) for at in range(0, 200, 20)]
    for (pixels, indices), chunk in zip(decoded_batches(chunks, decoder, SHAPE, config(decoders)), chunks, strict=True):
        np.testing.assert_array_equal(indices, chunk)
        np.testing.assert_array_equal(pixels[:, 0, 0, 0], chunk)


def test_a_pass_that_is_left_early_leaves_no_thread() -> None:
    before = threading.active_count()
    batches = decoded_batches([np.arange(8)] * 50, lambda _: lambda: np.zeros(SHAPE, np.uint8), SHAPE, config(2))
    next(batches)
    batches.close()
    assert threading.active_count() == before


@pytest.mark.parametrize("decoders", [0, 2])
def test_a_bad_image_is_named_when_its_batch_comes(tmp_path: Path, decoders: int) -> None:
    for i in range(8):
        (tmp_path / f"{i}.png").write_bytes(b"none" if i == 5 else png(i))
    images = EncodedImages.of_files([tmp_path / f"{i}.png" for i in range(8)], PixelRules(8))
    batches = images.batches([np.arange(4), np.arange(4, 8)], config(decoders))
    next(batches)
    with pytest.raises(UserError, match=r"5\.png: cannot decode the image"):
        next(batches)


def test_decoders_follow_the_cpus_of_the_worker_unless_they_are_named() -> None:
    assert [decoders_of(config(None), cpus) for cpus in (0.5, 1, 2, 6)] == [2, 2, 2, 6]
    assert decoders_of(config(0), 6) == 0
