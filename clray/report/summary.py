"""Mean and spread of accuracy over a sweep's repeats, beside the cluster statistics, and how they go together."""

import math
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.stats import spearmanr

from clray.report.results import TrialResult

ACCURACIES = ("eval/linear_accuracy", "eval/knn_accuracy")
INFORMATION = ("clusters/mutual_information_bits", "clusters/conditional_entropy_bits")


@dataclass(frozen=True)
class PointSummary:
    """One point of a sweep over its repeats; `spreads` are sample standard deviations, absent with one repeat."""

    point: str
    num_repeats: int
    means: dict[str, float]
    spreads: dict[str, float]


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a metric's means with accuracy, over the points."""

    metric: str
    coefficient: float
    p_value: float
    num_points: int


def summarize(results: list[TrialResult], metric: str = ACCURACIES[0]) -> list[PointSummary]:
    """The finished repeats of each point together, the best point by `metric` first.

    Trials that were ended early stand at an earlier epoch and are left out.
    """
    by_point: dict[str, list[TrialResult]] = {}
    for result in results:
        if result.state != "finished":
            continue
        by_point.setdefault(result.point, []).append(result)
    summaries = [_summary(point, repeats) for point, repeats in by_point.items()]
    return sorted(summaries, key=lambda each: -each.means.get(metric, -math.inf))


def _summary(point: str, repeats: list[TrialResult]) -> PointSummary:
    means, spreads = {}, {}
    for name in (*ACCURACIES, *INFORMATION):
        values = [each.metrics[name] for each in repeats if name in each.metrics]
        if values:
            means[name] = fmean(values)
            if len(values) > 1:
                spreads[name] = stdev(values)
    return PointSummary(point, len(repeats), means, spreads)


def correlations(summaries: list[PointSummary], metric: str = ACCURACIES[0]) -> list[Correlation]:
    """Of accuracy with I(Z;T) and with H(Z|T); none where fewer than three points differ."""
    found = []
    for name in INFORMATION:
        pairs = [(each.means[name], each.means[metric]) for each in summaries if {name, metric} <= each.means.keys()]
        if len({x for x, _ in pairs}) < 3 or len({y for _, y in pairs}) < 3:
            continue
        result = spearmanr(*zip(*pairs, strict=True))
        found.append(Correlation(name, float(result.statistic), float(result.pvalue), len(pairs)))
    return found


def as_rows(summaries: list[PointSummary]) -> list[tuple[str, ...]]:
    """Cells of the table below `HEADER`, accuracies in percent, information in bits."""
    rows = []
    for each in summaries:
        accuracies = (_with_spread(each, name, 100, 1) for name in ACCURACIES)
        information = (_with_spread(each, name, 1, 2) for name in INFORMATION)
        rows.append((each.point, str(each.num_repeats), *accuracies, *information))
    return rows


HEADER = ("point", "repeats", "linear %", "k-NN %", "I(Z;T) bits", "H(Z|T) bits")


def _with_spread(summary: PointSummary, name: str, scale: float, digits: int) -> str:
    if name not in summary.means:
        return ""
    mean = f"{scale * summary.means[name]:.{digits}f}"
    return f"{mean} ± {scale * summary.spreads[name]:.{digits}f}" if name in summary.spreads else mean


def describe(correlation: Correlation) -> str:
    """One line such as `Spearman of linear accuracy with I(Z;T): 0.81 (p = 0.003, 12 points)`."""
    name = {INFORMATION[0]: "I(Z;T)", INFORMATION[1]: "H(Z|T)"}[correlation.metric]
    return (
        f"Spearman's correlation of linear accuracy with {name}: {correlation.coefficient:+.2f} "
        f"(p = {correlation.p_value:.2g}, {correlation.num_points} points)"
    )


def describe_best(summaries: list[PointSummary], num_trials: int, metric: str = ACCURACIES[0]) -> str:
    """Two sentences for someone who knows nothing of the sweep: what was best, and how it stands to the rest."""
    best = summaries[0]
    name = metric.removeprefix("eval/").replace("_", " ")
    information, rest = (best.means.get(each, math.nan) for each in INFORMATION)
    over = f" over {best.num_repeats} seeds" if best.num_repeats > 1 else ""
    first = (
        f"Of {num_trials} trials the best is {best.point}, with {_with_spread(best, metric, 100, 1)} % {name}{over}: "
        f"its clusters tell {information:.2f} bits about the labels, I(Z;T), and hold {rest:.2f} bits besides, H(Z|T)."
    )
    if len(summaries) == 1:
        return first
    second, last = summaries[1], summaries[-1]
    return (
        f"{first} Next is {second.point} ({_with_spread(second, metric, 100, 1)} %), last {last.point} "
        f"({_with_spread(last, metric, 100, 1)} %)."
    )


def as_markdown(summaries: list[PointSummary]) -> str:
    """The table in Markdown, with the correlations below."""
    lines = ["| " + " | ".join(HEADER) + " |", "| --- |" + " ---: |" * (len(HEADER) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in as_rows(summaries)]
    return "\n".join([*lines, "", *(f"- {describe(each)}" for each in correlations(summaries))]) + "\n"
