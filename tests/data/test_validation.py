"""Validation images: shares of the classes, held out of training, and nobody's twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clray.config.sections import DataConfig
from clray.data.load import load_dataset
from clray.data.validation import choose_validation, with_validation


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=200), st.floats(0, 0.99), st.integers(0, 5))
def test_no_class_loses_its_last_two_samples_and_each_gives_its_share(
    labels: list[int], fraction: float, seed: int
) -> None:
    values = np.array(labels)
    rows = choose_validation(values, fraction, seed)
    assert len(np.unique(rows)) == len(rows)
    for label in np.unique(values):
        count, held_out = int((values == label).sum()), int((values[rows] == label).sum())
        assert held_out <= max(0, count - 2)
        assert held_out <= count * fraction + 1
        assert held_out >= min(np.floor(count * fraction), max(0, count - 2))


def test_many_small_classes_give_their_share_together() -> None:
    rows = choose_validation(np.repeat(np.arange(500), 4), 0.1, 0)
    assert len(rows) == pytest.approx(200, abs=40)


def test_the_parts_of_the_digits_hold_every_image_once() -> None:
    whole = load_dataset(DataConfig())
    data = with_validation(whole, DataConfig())
    assert whole.validation is None
    assert data.validation is not None
    assert len(data.validation) == pytest.approx(0.1 * len(whole.train), abs=10)
    parts = np.concatenate([data.train.images.pixels, data.validation.images.pixels])
    order, expected = (np.lexsort(each.reshape(len(each), -1).T) for each in (parts, whole.train.images.pixels))
    assert np.array_equal(parts[order], whole.train.images.pixels[expected])
    assert np.array_equal(data.test.labels, whole.test.labels)
    assert np.bincount(data.validation.labels).min() > 5
