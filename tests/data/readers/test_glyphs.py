from math import log2

import numpy as np
import pytest

from clray.clusters.granularity import build_attribute_clusters, build_hierarchy_clusters
from clray.config.sections import DataConfig
from clray.data.load import load_dataset
from clray.data.readers.glyphs import CHARACTERS, read_glyphs
from tests.conftest import REPOSITORY


def test_every_character_is_drawn_in_every_font_and_no_two_images_are_the_same() -> None:
    glyphs = read_glyphs()
    pixels = glyphs.images.pixels
    assert pixels.shape == (1872, 1, 16, 16)
    assert len(np.unique(pixels.reshape(1872, -1), axis=0)) == 1872
    assert set(glyphs.labels.value_counts()) == {16}
    assert (pixels.max(axis=(1, 2, 3)) > 150).all()  # something is drawn
    assert (pixels.mean(axis=(1, 2, 3)) < 140).all()


def test_attributes_of_the_font_tell_nothing_and_those_of_the_character_hold_nothing_besides() -> None:
    data = load_dataset(DataConfig(name="glyphs", test_fraction=0.001))
    glyphs = read_glyphs()
    codes = {name: np.unique(values, return_inverse=True)[1] for name, values in glyphs.columns.items()}
    labels = np.unique(glyphs.labels, return_inverse=True)[1]
    of_font = build_attribute_clusters(codes, labels, [1, 3], order=["family", "weight", "slant"])
    for each, bits in zip(of_font, (2, 4), strict=True):
        assert each.metrics["clusters/entropy_bits"] == pytest.approx(bits)
        assert each.metrics["clusters/mutual_information_bits"] == pytest.approx(0, abs=1e-9)
    (of_character,) = build_attribute_clusters(codes, labels, [2], order=["alphabet", "case"])
    sizes = [len(each) / 117 for each in CHARACTERS.values()]
    assert of_character.metrics["clusters/conditional_entropy_bits"] == pytest.approx(0, abs=1e-9)
    assert of_character.metrics["clusters/mutual_information_bits"] == pytest.approx(-sum(p * log2(p) for p in sizes))
    assert set(data.train.columns) == set(codes)


def test_the_tree_of_the_characters_has_their_alphabets_and_cases() -> None:
    data = load_dataset(DataConfig(name="glyphs"))
    tree = REPOSITORY / "tune_configs" / "trees" / "glyphs.yaml"
    found = build_hierarchy_clusters(data.train.labels, data.names[None], tree, [0, 1, 2])
    assert [each.assignment.num_clusters for each in found] == [4, 7, 117]
    assert all(each.metrics["clusters/conditional_entropy_bits"] < 1e-9 for each in found)
