"""Rank correlations over the points."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from clray.report.correlation import correlations, describe, spearman
from clray.report.summary import summarize
from tests.conftest import REPOSITORY
from tests.report.sweeps import digits, trial

VALUES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=6, max_size=30)


@settings(deadline=None, max_examples=60)
@given(VALUES, st.randoms(use_true_random=False))
def test_agrees_with_scipy_however_rounding_breaks_the_ties(pairs: list[tuple[int, int]], random: object) -> None:
    noisy = [(x + random.uniform(-1, 1) * 4e-16, y / 7 + random.uniform(-1, 1) * 1e-16) for x, y in pairs]
    coefficient, p = spearman(*zip(*noisy, strict=True))
    x, y = zip(*pairs, strict=True)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert (coefficient, p) == (None, None)
        return
    expected = spearmanr(x, y)
    assert coefficient == pytest.approx(expected.statistic)
    assert p == pytest.approx(expected.pvalue, abs=1e-9)


def test_six_values_that_are_equal_up_to_rounding_have_no_correlation() -> None:
    rest = [n * 1e-16 for n in range(6)]
    assert spearman(rest, [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]) == (None, None)
    trials = [trial(f"p{n}", 0.6 - n / 10, rest=rest[n], information=float(n)) for n in range(6)]
    of_information, of_rest = correlations(summarize(trials))
    assert of_information.coefficient == pytest.approx(-1)
    assert of_rest.coefficient is None
    assert describe(of_rest).endswith("H(Z|T), all points: none, as one of them is the same at all 6 points")


def test_fewer_than_six_points_have_no_p_value() -> None:
    assert spearman([1, 2, 3, 4, 5], [1, 2, 3, 5, 4])[1] is None
    assert spearman([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 6, 5])[1] is not None


def test_they_are_given_within_each_temperature_and_without_the_references() -> None:
    found = correlations(summarize(digits().trials))
    assert [(each.among, each.num_points) for each in found[::2]] == [
        ("all points", 10), ("t=0.1", 5), ("t=0.5", 5), ("without the reference points", 6),
    ]  # fmt: skip
    assert "too few for a p-value" in describe(found[2])


def test_ranks_that_agree_correlate_fully_and_their_opposite_inversely() -> None:
    trials = [trial(f"k={i}", i / 10, information=i * i, rest=3 - i) for i in range(1, 6)]
    of_information, of_rest = correlations(summarize(trials))
    assert of_information.coefficient == pytest.approx(1)
    assert of_rest.coefficient == pytest.approx(-1)


def test_the_test_images_count_where_all_points_have_been_measured_on_them() -> None:
    trials = [trial(f"k={i}", 1 - i / 10, information=i) for i in range(1, 6)]
    on_test = [replace(each, metrics={**each.metrics, "test/linear_accuracy": 1 - each.metrics["eval/linear_accuracy"]})
               for each in trials]  # fmt: skip
    assert correlations(summarize(on_test))[0].coefficient == pytest.approx(1)
    assert correlations(summarize([*on_test[:4], trials[4]]))[0].coefficient == pytest.approx(-1)


def test_two_points_have_no_correlation() -> None:
    assert correlations(summarize([trial("a", 0.1, information=1), trial("b", 0.2, information=2)])) == []


def published(document: str, *, columns: tuple[int, int, int]) -> tuple[str, list[tuple[float, ...]]]:
    """The text of a document, and of the rows of its first table accuracy, I(Z;T) and H(Z|T)."""
    text = (REPOSITORY / "docs" / document).read_text()
    table = re.search(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert table is not None
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table[0].splitlines()[2:]]
    cells = [[row[column].split("±")[0].strip() for column in columns] for row in rows]
    return text, [tuple(map(float, each)) for each in cells if all(each)]


@pytest.mark.parametrize(("document", "columns"), [("claims.md", (2, 4, 5)), ("information_plane.md", (1, 3, 4))])
def test_the_published_figures_are_those_of_their_tables(document: str, columns: tuple[int, int, int]) -> None:
    text, rows = published(document, columns=columns)
    accuracy, *information = zip(*rows, strict=True)
    for values in information:
        assert f"{spearman(values, accuracy)[0]:+.2f}" in text
