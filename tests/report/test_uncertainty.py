"""Intervals hold what they say: simulated accuracies fall outside them as often as 95 % allow."""

import numpy as np
import pytest

from clray.report.summary import summarize
from clray.report.uncertainty import Noise, noise_of
from tests.report.sweeps import trial

METRIC = "eval/linear_accuracy"


def test_two_equal_points_with_seeds_are_told_apart_in_one_of_twenty_sweeps() -> None:
    generator = np.random.default_rng(0)
    outside = 0
    for _ in range(400):
        values = generator.normal(0.6, 0.01, (6, 3))
        points = summarize([trial(f"p{n}", value, seed=s) for n, row in enumerate(values) for s, value in
                            enumerate(row)])  # fmt: skip
        noise = noise_of(points, METRIC, 500)
        first, second = (next(each for each in points if each.point == name) for name in ("p0", "p1"))
        margin = noise.margin(*((each.means[METRIC], each.num_repeats) for each in (first, second)))
        assert margin is not None
        outside += abs(first.means[METRIC] - second.means[METRIC]) > margin
    assert outside / 400 == pytest.approx(0.05, abs=0.03)


@pytest.mark.parametrize("share", [0.5, 0.95, 1.0])
def test_two_equal_encoders_with_one_seed_are_told_apart_in_at_most_one_of_twenty_test_sets(share: float) -> None:
    generator = np.random.default_rng(1)
    drawn = generator.binomial(200, share, (2000, 2)) / 200
    noise = Noise(None, 0, 200)
    outside = [abs(a - b) > (noise.margin((a, 1), (b, 1)) or 0) for a, b in drawn]
    assert np.mean(outside) <= 0.07


def test_no_error_is_known_of_one_seed_and_unknown_test_images() -> None:
    assert noise_of(summarize([trial("a", 0.5)]), METRIC, None).margin((0.5, 1)) is None


def test_seeds_that_agree_to_the_last_image_leave_the_binomial_error() -> None:
    points = summarize([trial("a", 0.5, seed=0), trial("a", 0.5, seed=1)])
    assert noise_of(points, METRIC, 100) == Noise(None, 0, 100)
