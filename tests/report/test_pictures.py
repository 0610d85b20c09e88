import tracemalloc

import numpy as np
import pytest

from clray.report.pictures import label_shares


def test_shares_are_those_of_the_whole_table() -> None:
    generator = np.random.default_rng(0)
    ids, labels = generator.integers(0, 40, 500), generator.integers(0, 7, 500)
    sizes = np.bincount(ids, minlength=42)
    table = np.zeros((7, 42))
    np.add.at(table, (labels, ids), 1)
    shown = np.array([3, 41, 0, 17])
    assert label_shares(ids, labels, shown, sizes) == pytest.approx(table[:, shown] / np.maximum(sizes[shown], 1))


def test_as_many_clusters_as_images_take_no_table_of_labels_and_clusters() -> None:
    ids = np.arange(100_000, dtype=np.int32)
    tracemalloc.start()
    label_shares(ids, (ids % 1000), np.arange(100), np.ones(len(ids), np.int64))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6, "the dense table holds 100,000 x 1,000 counts"
