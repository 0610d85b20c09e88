import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clray.report.pictures import draw_balance, draw_clusters, label_shares


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


@pytest.mark.parametrize("kept", [0, 20, 60])
def test_clusters_are_drawn_with_what_labels_there_are(tmp_path: Path, kept: int) -> None:
    labels = np.where(np.arange(60) < kept, np.arange(60) % 3, -1)
    places = np.random.default_rng(0).random((60, 2))
    names = ("a", "b", "c") if kept else ()
    path = draw_clusters(np.arange(60) % 4, 5, labels, places, np.arange(60), names, tmp_path / "clusters.png")
    width = Image.open(path).width
    assert (width > 900) == (kept > 0), "the panels of labels"


def test_without_labels_the_balance_of_clusters_is_drawn(tmp_path: Path) -> None:
    first = {"epoch": 1, "clusters/entropy_bits": 1.0, "clusters/imbalance_factor": 1.0}
    history = [first, {**first, "epoch": 2, "recluster/moved_fraction": 0.5}]
    tall, low = (Image.open(draw_balance(each, tmp_path / "b.png")).height for each in (history, history[:1]))
    assert tall > low
