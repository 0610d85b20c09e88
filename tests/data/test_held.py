"""Images on their device, here the CPU, against those that stay in their array."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from clray.config.sections import DataConfig
from clray.data import held
from clray.data.held import brought_to, held_on, held_within
from clray.data.images.array import ArrayImages
from clray.data.images.vectors import VectorImages
from clray.data.loaders import ordered_batches, training_batches
from clray.data.samples import Samples

CPU, CONFIG = torch.device("cpu"), DataConfig()
N = 23
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 3, 4, 5), dtype=np.uint8)
VECTORS = np.random.default_rng(1).normal(size=(N, 6)).astype(np.float32)
IMAGES = {"images": ArrayImages(PIXELS), "vectors": VectorImages(VECTORS, np.arange(N), (("x.npy", 0),))}
NUM_BYTES = {"images": PIXELS.nbytes, "vectors": VECTORS.nbytes}


def samples(kind: str) -> Samples:
    return Samples(IMAGES[kind], np.zeros(N, np.int32), {})


@pytest.mark.parametrize("kind", IMAGES)
def test_held_images_come_in_the_same_batches(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "ROWS_PER_COPY", 7)
    plain, order = samples(kind), np.random.default_rng(2).permutation(N)
    there = held_within(NUM_BYTES[kind], CPU, plain, CONFIG)
    assert there.held is not None
    assert there.held.nbytes == NUM_BYTES[kind]
    for make in (
        lambda data: training_batches(data, order, batch_size=4, steps=5, config=CONFIG),
        lambda data: ordered_batches(data, order[:9], batch_size=4, config=CONFIG),
    ):
        # Without their array: what comes is what is held.
        gone = replace(there, images=ArrayImages(PIXELS[:0]))
        torch.testing.assert_close(list(make(gone)), list(make(plain)), rtol=0, atol=0)


@pytest.mark.parametrize("kind", IMAGES)
def test_images_that_do_not_fit_stay(kind: str) -> None:
    plain = samples(kind)
    assert held_within(NUM_BYTES[kind] - 1, CPU, plain, CONFIG) is plain


def test_on_a_cpu_nothing_is_copied() -> None:
    plain = samples("images")
    assert held_on(CPU, plain, CONFIG) is plain
    batches = iter([])
    assert brought_to(CPU, batches) is batches


def test_on_a_gpu_a_share_of_its_free_memory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3000, 8000))
    monkeypatch.setattr(held, "held_within", lambda num_bytes, _, data, __: given.append(num_bytes) or data)
    held_on(torch.device("cuda"), samples("images"), DataConfig(device_memory_fraction=0.5))
    assert given == [1500]
