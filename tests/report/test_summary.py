"""Repeats together, and rank correlations over the points."""

import pytest

from clray.report.results import TrialResult
from clray.report.summary import as_markdown, correlations, summarize


def trial(point: str, seed: int, accuracy: float, information: float) -> TrialResult:
    metrics = {
        "eval/linear_accuracy": accuracy,
        "clusters/mutual_information_bits": information,
        "clusters/conditional_entropy_bits": 3 - information,
    }
    return TrialResult(point, seed, metrics)


def test_repeats_of_a_point_give_its_mean_and_sample_deviation() -> None:
    (summary,) = summarize([trial("k=5", 0, 0.5, 1.0), trial("k=5", 1, 0.7, 1.0)])
    assert summary.num_repeats == 2
    assert summary.means["eval/linear_accuracy"] == pytest.approx(0.6)
    assert summary.spreads["eval/linear_accuracy"] == pytest.approx(0.02**0.5)


def test_the_best_point_comes_first_and_one_repeat_has_no_spread() -> None:
    summaries = summarize([trial("low", 0, 0.2, 1.0), trial("high", 0, 0.9, 2.0)])
    assert [each.point for each in summaries] == ["high", "low"]
    assert "±" not in as_markdown(summaries)


def test_ranks_that_agree_correlate_fully_and_their_opposite_inversely() -> None:
    of_information, of_rest = correlations(summarize([trial(f"k={i}", 0, i / 10, i * i) for i in range(1, 6)]))
    assert of_information.coefficient == pytest.approx(1)
    assert of_rest.coefficient == pytest.approx(-1)


def test_two_points_have_no_correlation() -> None:
    assert correlations(summarize([trial("a", 0, 0.1, 1.0), trial("b", 0, 0.2, 2.0)])) == []
