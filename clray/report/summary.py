"""Mean and spread of accuracy over a sweep's repeats, beside the cluster statistics."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from clray.report.results import TrialResult
from clray.report.roles import Role

ACCURACIES = ("eval/linear_accuracy", "eval/knn_accuracy")
INFORMATION = ("clusters/mutual_information_bits", "clusters/conditional_entropy_bits")
ABOVE_CHANCE = "clusters/adjusted_mutual_information_bits"
SHORT_NAMES = {INFORMATION[0]: "I(Z;T)", INFORMATION[1]: "H(Z|T)", ABOVE_CHANCE: "I(Z;T) above chance"}
COLUMNS = (
    ("linear %", ACCURACIES[0], 100, 1),
    ("k-NN %", ACCURACIES[1], 100, 1),
    ("test linear %", "test/linear_accuracy", 100, 1),
    ("test k-NN %", "test/knn_accuracy", 100, 1),
    ("I(Z;T) bits", INFORMATION[0], 1, 2),
    ("above chance", ABOVE_CHANCE, 1, 2),
    ("H(Z|T) bits", INFORMATION[1], 1, 2),
    ("NMI", "clusters/nmi", 1, 2),
    ("AMI", "clusters/ami", 1, 2),
    ("ARI", "clusters/ari", 1, 2),
)
"""Of the table: heading, metric, factor and digits."""
BALANCE = ("clusters/entropy_bits", "clusters/imbalance_factor")
OTHER_COLUMNS = (
    ("linear mAP %", "eval/linear_mean_average_precision", 100, 1),
    ("k-NN mAP %", "eval/knn_mean_average_precision", 100, 1),
    ("test linear mAP %", "test/linear_mean_average_precision", 100, 1),
    ("test k-NN mAP %", "test/knn_mean_average_precision", 100, 1),
    ("RankMe", "eval/rankme", 1, 2),
    ("silhouette", "eval/silhouette", 1, 2),
    ("stability", "eval/stability", 1, 2),
    ("spread", "train/embedding_spread", 1, 2),
    ("H(Z) bits", BALANCE[0], 1, 2),
    ("imbalance", BALANCE[1], 1, 2),
)
"""Of the table where there are no accuracies."""
NAMES = {"eval/rankme": "RankMe"}
SUMMED = ("eval/", "test/", "clusters/", "train/embedding_spread")
Column = tuple[str, str, float, int]
NUM_NARROW = 10
"""Columns of the table that fit on a terminal, counted with those of the point."""


@dataclass(frozen=True)
class PointSummary:
    """One point of a sweep over its repeats.

    Attributes:
        means: of each metric over the repeats.
        spreads: sample standard deviations, absent with one repeat.
        num_clusters: K at the end.
        source: where the clusters come from, with the objective where that is not Cl-InfoNCE.
    """

    point: str
    num_repeats: int
    means: dict[str, float]
    spreads: dict[str, float]
    role: Role = Role.CANDIDATE
    temperature: float | None = None
    num_clusters: int | None = None
    source: str = ""


def metric_name(metric: str) -> str:
    """`eval/linear_accuracy` in words."""
    _, name, *column = metric.split("/")
    return NAMES.get(metric, name.replace("_", " ")) + (f" of {'/'.join(column)}" if column else "")


def reported_metric(summaries: Sequence[PointSummary], metric: str) -> str:
    """The same measure on the test images, where all points that are ranked by `metric` have it; else `metric`."""
    on_test = metric.replace("eval/", "test/", 1)
    ranked = [each for each in summaries if metric in each.means]
    return on_test if ranked and all(on_test in each.means for each in ranked) else metric


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
    for name in sorted({name for each in repeats for name in each.metrics if name.startswith(SUMMED)}):
        values = [each.metrics[name] for each in repeats if name in each.metrics]
        if values:
            means[name] = fmean(values)
            if len(values) > 1:
                spreads[name] = stdev(values)
    first = repeats[0]
    count = first.metrics.get("clusters/num_clusters")
    return PointSummary(
        point, len(repeats), means, spreads, first.role, first.temperature,
        None if count is None else int(count), first.source,
    )  # fmt: skip


def columns_of(summaries: Sequence[PointSummary]) -> tuple[Column, ...]:
    """Of the table: accuracies and information, or where there are no accuracies what is known in their place."""
    known = {name for each in summaries for name in each.means}
    if not summaries or known & set(ACCURACIES):
        return COLUMNS
    return tuple(column for column in (*OTHER_COLUMNS, *COLUMNS) if column[1] in known)


def header_of(summaries: Sequence[PointSummary]) -> tuple[str, ...]:
    """The headings of `as_rows`."""
    return ("point", "role", "repeats", *(heading for heading, *_ in columns_of(summaries)))


def as_rows(summaries: Sequence[PointSummary], columns: Sequence[Column] | None = None) -> list[tuple[str, ...]]:
    """Cells of the table below `header_of`, accuracies in percent, information in bits; candidates have no role."""
    rows, columns = [], columns_of(summaries) if columns is None else columns
    for each in summaries:
        role = str(each.role) if each.role.is_reference else ""
        cells = (with_spread(each, name, scale, digits) for _, name, scale, digits in columns)
        rows.append((each.point, role, str(each.num_repeats), *cells))
    return rows


def with_spread(summary: PointSummary, name: str, scale: float, digits: int) -> str:
    """`81.3 ± 0.4`, without the spread where there is one repeat, empty where the metric is not known."""
    if name not in summary.means:
        return ""
    mean = f"{round(scale * summary.means[name], digits) + 0.0:.{digits}f}"  # no minus before a zero
    return f"{mean} ± {scale * summary.spreads[name]:.{digits}f}" if name in summary.spreads else mean
