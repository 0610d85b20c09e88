"""Repeats together, best first."""

import pytest

from clray.report.summary import as_rows, summarize
from tests.report.sweeps import trial


def test_repeats_of_a_point_give_its_mean_and_sample_deviation() -> None:
    (summary,) = summarize([trial("k=5", 0.5), trial("k=5", 0.7, seed=1)])
    assert summary.num_repeats == 2
    assert summary.means["eval/linear_accuracy"] == pytest.approx(0.6)
    assert summary.spreads["eval/linear_accuracy"] == pytest.approx(0.02**0.5)


def test_the_best_point_comes_first_and_one_repeat_has_no_spread() -> None:
    summaries = summarize([trial("low", 0.2), trial("high", 0.9)])
    assert [each.point for each in summaries] == ["high", "low"]
    assert "±" not in str(as_rows(summaries))


def test_points_whose_means_are_equal_up_to_rounding_keep_their_order() -> None:
    first = [trial("first", value) for value in (0.1, 0.2, 0.3)]
    second = [trial("second", value) for value in (0.3, 0.2, 0.1)]
    assert [each.point for each in summarize([*first, *second])] == ["first", "second"]
    assert [each.point for each in summarize([*second, *first])] == ["second", "first"]
