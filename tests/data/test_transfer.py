"""Batches that are copied ahead, and copies for the host, on a CPU."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from clray.data.images.port import Batch
from clray.data.transfer import HostCopy, one_ahead, to_device


class Told:
    """Copies that tell what happens when."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def begin(self, images: Tensor) -> tuple[Tensor]:
        self.events.append(f"begin {int(images)}")
        return (images + 100,)

    def end(self, begun: tuple[Tensor]) -> Tensor:
        self.events.append(f"end {int(begun[0]) - 100}")
        return begun[0]


def batches(count: int) -> Iterator[Batch]:
    for number in range(count):
        yield torch.tensor(number), torch.tensor([10 * number])


def test_a_batch_is_copied_while_the_one_before_it_is_trained_on() -> None:
    copies = Told()
    for images, indices in one_ahead(batches(3), copies):
        assert int(indices) == 10 * (int(images) - 100)
        copies.events.append(f"train {int(images) - 100}")
    assert copies.events == [
        *("begin 0", "begin 1", "end 0", "train 0"),
        *("begin 2", "end 1", "train 1"),
        *("end 2", "train 2"),
    ]
    assert list(one_ahead(batches(0), copies)) == []


def test_on_a_cpu_values_are_where_they_were() -> None:
    values = np.arange(4)
    assert to_device(values, torch.device("cpu")).data_ptr() == values.ctypes.data
    copy = HostCopy(torch.from_numpy(values))
    assert copy.ready()
    assert np.shares_memory(copy.result(), values)
    assert HostCopy(values).result() is values
