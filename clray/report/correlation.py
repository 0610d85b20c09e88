"""Rank correlation of accuracy with what clusters tell, in which equal values are ties."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata
from scipy.stats import t as student_t

from clray.report.summary import (
    ABOVE_CHANCE,
    ACCURACIES,
    INFORMATION,
    SHORT_NAMES,
    PointSummary,
    metric_name,
    reported_metric,
)

TIE_DIGITS = 9
"""Values equal to so many decimals are ties: what differs beyond is the rounding of sums of logarithms."""
FEWEST_POINTS, FEWEST_FOR_P = 3, 6


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of two metrics over points.

    Attributes:
        metric: that is held against `accuracy`.
        among: which points: `all points`, `t=0.1`, `without the reference points`.
        coefficient: None where either metric is the same at all points.
        p_value: two-sided, by Student's t; None with fewer than 6 points, where that says nothing.
    """

    metric: str
    accuracy: str
    among: str
    coefficient: float | None
    p_value: float | None
    num_points: int


def spearman(x: Sequence[float], y: Sequence[float]) -> tuple[float | None, float | None]:
    """Spearman's coefficient and its two-sided p-value; ties share the mean of their ranks.

    The coefficient is None where x or y is constant, the p-value then and where there are fewer than 6 pairs.
    """
    ranks = [rankdata(np.round(np.asarray(values, np.float64), TIE_DIGITS)) for values in (x, y)]
    if any(np.ptp(each) == 0 for each in ranks):
        return None, None
    coefficient = float(np.clip(np.corrcoef(*ranks)[0, 1], -1, 1))
    if len(ranks[0]) < FEWEST_FOR_P:
        return coefficient, None
    freedom = len(ranks[0]) - 2
    t = math.inf if abs(coefficient) > 1 - 1e-12 else abs(coefficient) * math.sqrt(freedom / (1 - coefficient**2))
    return coefficient, float(2 * student_t.sf(t, freedom))


def correlations(summaries: Sequence[PointSummary], metric: str = ACCURACIES[0]) -> list[Correlation]:
    """Of accuracy with I(Z;T), raw and above chance, and with H(Z|T).

    Given over all points, within each temperature, and without the reference points.

    A part of fewer than 3 points is left out, and one that is all of them. Accuracy is that on the test images where
    all points have it.
    """
    metric = reported_metric(summaries, metric)
    points = Counter(each.temperature for each in summaries if each.temperature is not None)
    temperatures = sorted(value for value, count in points.items() if count >= FEWEST_POINTS)
    parts = [("all points", list(summaries))]
    parts += [(f"t={value:g}", [each for each in summaries if each.temperature == value]) for value in temperatures]
    parts.append(("without the reference points", [each for each in summaries if not each.role.is_reference]))
    found = []
    for among, members in parts:
        for name in (INFORMATION[0], ABOVE_CHANCE, INFORMATION[1]):
            chosen = [each for each in members if {name, metric} <= each.means.keys()]
            if len(chosen) < FEWEST_POINTS or (among != "all points" and len(members) == len(summaries)):
                continue
            pair = spearman([each.means[name] for each in chosen], [each.means[metric] for each in chosen])
            found.append(Correlation(name, metric, among, *pair, len(chosen)))
    return found


def describe(correlation: Correlation) -> str:
    """One line: `Spearman of linear accuracy with I(Z;T), all points: +0.81 (p = 0.003, 12 points)`."""
    head = (
        f"Spearman's correlation of {metric_name(correlation.accuracy)} with {SHORT_NAMES[correlation.metric]}, "
        f"{correlation.among}: "
    )
    if correlation.coefficient is None:
        return f"{head}none, as one of them is the same at all {correlation.num_points} points"
    p = "too few for a p-value" if correlation.p_value is None else f"p = {correlation.p_value:.2g}"
    return f"{head}{correlation.coefficient:+.2f} ({p}, {correlation.num_points} points)"
