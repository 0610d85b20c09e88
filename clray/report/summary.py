"""Mean and spread of accuracy over a sweep's repeats, beside the cluster statistics."""

import math
from dataclasses import dataclass
from statistics import fmean, stdev

from clray.report.results import TrialResult
from clray.report.roles import Role

ACCURACIES = ("eval/linear_accuracy", "eval/knn_accuracy")
INFORMATION = ("clusters/mutual_information_bits", "clusters/conditional_entropy_bits")
SHORT_NAMES = {INFORMATION[0]: "I(Z;T)", INFORMATION[1]: "H(Z|T)"}
HEADER = ("point", "repeats", "linear %", "k-NN %", "I(Z;T) bits", "H(Z|T) bits")


@dataclass(frozen=True)
class PointSummary:
    """One point of a sweep over its repeats.

    Attributes:
        means: of each metric over the repeats.
        spreads: sample standard deviations, absent with one repeat.
        num_clusters: K at the end.
    """

    point: str
    num_repeats: int
    means: dict[str, float]
    spreads: dict[str, float]
    role: Role = Role.CANDIDATE
    temperature: float | None = None
    num_clusters: int | None = None


def metric_name(metric: str) -> str:
    """`eval/linear_accuracy` in words."""
    return metric.removeprefix("eval/").replace("_", " ")


def summarize(results: list[TrialResult], metric: str = ACCURACIES[0]) -> list[PointSummary]:
    """The finished repeats of each point together, the best point by `metric` first.

    Points whose means agree to 1e-9 keep the order in which they began. Trials that were ended early stand at an
    earlier epoch and are left out.
    """
    by_point: dict[str, list[TrialResult]] = {}
    for result in results:
        if result.is_finished:
            by_point.setdefault(result.point, []).append(result)
    summaries = [_summary(point, repeats) for point, repeats in by_point.items()]
    return sorted(summaries, key=lambda each: -round(each.means.get(metric, -math.inf), 9))


def _summary(point: str, repeats: list[TrialResult]) -> PointSummary:
    means, spreads = {}, {}
    for name in (*ACCURACIES, *INFORMATION):
        values = [each.metrics[name] for each in repeats if name in each.metrics]
        if values:
            means[name] = fmean(values)
            if len(values) > 1:
                spreads[name] = stdev(values)
    first = repeats[0]
    count = first.metrics.get("clusters/num_clusters")
    return PointSummary(
        point, len(repeats), means, spreads, first.role, first.temperature, None if count is None else int(count)
    )  # fmt: skip


def as_rows(summaries: list[PointSummary]) -> list[tuple[str, ...]]:
    """Cells of the table below `HEADER`, accuracies in percent, information in bits."""
    rows = []
    for each in summaries:
        accuracies = (with_spread(each, name, 100, 1) for name in ACCURACIES)
        information = (with_spread(each, name, 1, 2) for name in INFORMATION)
        rows.append((each.point, str(each.num_repeats), *accuracies, *information))
    return rows


def with_spread(summary: PointSummary, name: str, scale: float, digits: int) -> str:
    """`81.3 ± 0.4`, without the spread where there is one repeat, empty where the metric is not known."""
    if name not in summary.means:
        return ""
    mean = f"{scale * summary.means[name]:.{digits}f}"
    return f"{mean} ± {scale * summary.spreads[name]:.{digits}f}" if name in summary.spreads else mean


def describe_best(summaries: list[PointSummary], num_trials: int, metric: str = ACCURACIES[0]) -> str:
    """Two sentences for someone who knows nothing of the sweep: what was best, and how it stands to the rest."""
    best = summaries[0]
    name = metric_name(metric)
    information, rest = (best.means.get(each, math.nan) for each in INFORMATION)
    over = f" over {best.num_repeats} seeds" if best.num_repeats > 1 else ""
    first = (
        f"Of {num_trials} trials the best is {best.point}, with {with_spread(best, metric, 100, 1)} % {name}{over}: "
        f"its clusters tell {information:.2f} bits about the labels, I(Z;T), and hold {rest:.2f} bits besides, H(Z|T)."
    )
    if len(summaries) == 1:
        return first
    second, last = summaries[1], summaries[-1]
    return (
        f"{first} Next is {second.point} ({with_spread(second, metric, 100, 1)} %), last {last.point} "
        f"({with_spread(last, metric, 100, 1)} %)."
    )
