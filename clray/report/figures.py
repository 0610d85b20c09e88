"""What the charts of a sweep show, computed once: Matplotlib and the pages draw the same figures.

Points are averaged over their repeats and over nothing else. Knows no drawing library.
"""

import math
from collections.abc import Sequence

from clray.report.many import bands, thinned_groups, thinned_lines
from clray.report.marks import (
    BALANCE_PLANE,
    INFORMATION_PLANE,
    Axes,
    Corner,
    Granularity,
    Level,
    Line,
    LineMark,
    Plane,
    PlaneGroup,
    PlaneMark,
)
from clray.report.measures import measure_of
from clray.report.results import Sweep, TrialResult
from clray.report.roles import Role
from clray.report.summary import INFORMATION, PointSummary, metric_name, summarize

GRANULARITY_KEYS = {
    "kmeans": ("clusters.num_clusters", "clusters.granularities"),
    "clustering": ("clusters.num_clusters", "clusters.granularities"),
    "hierarchy": ("clusters.level", "clusters.granularities"),
    "attributes": ("clusters.num_attributes",),
    "column": ("clusters.column",),
    "synthetic": ("clusters.num_splits",),
}
"""By source: the keys along which a line over granularity runs."""
MAX_LINES = 12


def plane(sweeps: Sequence[Sweep], metric: str) -> Plane:
    """The information plane of one sweep, or of two in one chart.

    InfoNCE lies at (H(T), H(Z) - H(T)), SupCon at (H(T), 0).
    """
    measure, trials = measure_of(metric), [trial for sweep in sweeps for trial in sweep.trials]
    is_told = any({metric, *INFORMATION} <= trial.metrics.keys() for trial in trials)
    axes = INFORMATION_PLANE if is_told else BALANCE_PLANE
    named = bands(trial.temperature for sweep in sweeps for trial in sweep.trials)
    groups: dict[tuple[str, int, bool, bool], list[PlaneMark]] = {}
    names: dict[tuple[str, int, bool, bool], str] = {}
    for sweep in sweeps:
        prefix = _prefix(sweep, sweeps)
        for trial in sweep.trials:
            if {metric, *axes.metrics} <= trial.metrics.keys():
                key = (prefix, named[trial.temperature][0], trial.role.is_reference, not trial.is_finished)
                groups.setdefault(key, []).append(_plane_mark(trial, metric, axes))
                names[key] = prefix + _group_name(trial, named[trial.temperature][1])
    found = [PlaneGroup(names[key], *key[1:], tuple(groups[key])) for key in sorted(groups)]
    floor = sweeps[0].untrained.get(metric)
    corners = _corners(sweeps) if is_told else ()
    floor = None if floor is None else measure.scale * floor
    shown = thinned_groups(found, measure)
    return Plane(_shown_metric(sweeps, metric), shown, corners, floor, sweeps[0].start, measure, axes)


def granularity(sweeps: Sequence[Sweep], metric: str) -> Granularity:
    """Accuracy over the number of clusters; references apart, as levels."""
    numbers, measure = _numbers(sweeps), measure_of(metric)
    lines: list[Line] = []
    levels: list[Level] = []
    for sweep in sweeps:
        prefix = _prefix(sweep, sweeps)
        trials = {trial.point: trial for trial in sweep.trials if trial.is_finished}
        points = [(each, trials[each.point]) for each in summarize(sweep.trials, metric) if metric in each.means]
        for summary, trial in points:
            if summary.role.is_level:
                name = prefix + _with_temperature(_level_label(trial), trial)
                spread = _spread(summary, metric)
                number = numbers[trial.temperature]
                levels.append(Level(name, summary.role, number, measure.scale * summary.means[metric], spread))
        candidates = [(summary, trial) for summary, trial in points if not summary.role.is_level]
        lines += _lines(candidates, metric, prefix, numbers)
        if metric in sweep.untrained:
            floor = measure.scale * sweep.untrained[metric]
            levels.append(Level(prefix + sweep.start, None, None, floor, None))
    ordered = sorted(_best_of_many(levels), key=lambda each: each.name)
    return Granularity(_shown_metric(sweeps, metric), thinned_lines(lines), tuple(ordered), measure)


def _best_of_many(levels: list[Level]) -> list[Level]:
    """The levels, or of very many the best of each role."""
    if len(levels) <= 2 * MAX_LINES:
        return levels
    best: dict[Role | None, Level] = {}
    for level in levels:
        if level.role not in best or level.mean > best[level.role].mean:
            best[level.role] = level
    return list(best.values())


def _lines(
    points: list[tuple[PointSummary, TrialResult]], metric: str, prefix: str, numbers: dict[float | None, int]
) -> list[Line]:
    """A line for each setting and temperature; where most would be single points, they stand unconnected."""
    fixed = _fixed_keys([trial for _, trial in points])
    series: dict[tuple[str, str], list[tuple[PointSummary, TrialResult]]] = {}
    for summary, trial in points:
        shown = [f"{key.rsplit('.', 1)[-1]}={trial.params.get(key)}" for key in fixed[trial.source]]
        setting = ", ".join([trial.source, *shown])
        series.setdefault((setting, _with_temperature(setting, trial)), []).append((summary, trial))
    if len(series) > MAX_LINES and 2 * len(series) > len(points):
        series = {}
        for summary, trial in points:
            series.setdefault((trial.source, trial.source), []).append((summary, trial))
        is_joined = False
    else:
        is_joined = True
    settings = {setting: number for number, setting in enumerate(dict.fromkeys(key[0] for key in sorted(series)))}
    return [
        Line(
            prefix + name,
            numbers[members[0][1].temperature] if is_joined else settings[setting],
            settings[setting],
            is_joined,
            _line_marks([summary for summary, _ in members], metric),
        )
        for (setting, name), members in sorted(series.items(), key=lambda item: item[0])
    ]


def _line_marks(summaries: list[PointSummary], metric: str) -> tuple[LineMark, ...]:
    marks = [
        LineMark(each.point, each.num_clusters, measure_of(metric).scale * each.means[metric], _spread(each, metric))
        for each in summaries
        if each.num_clusters is not None
    ]
    return tuple(sorted(marks, key=lambda mark: (mark.num_clusters, mark.point)))


def _fixed_keys(trials: Sequence[TrialResult]) -> dict[str, list[str]]:
    """By source: the keys besides granularity, temperature and seed in which its trials differ."""
    by_source: dict[str, list[TrialResult]] = {}
    for trial in trials:
        by_source.setdefault(trial.source, []).append(trial)
    fixed = {}
    for name, members in by_source.items():
        source = members[0].params.get("clusters.source", "kmeans")
        free = {"seed", "objective.temperature", *GRANULARITY_KEYS.get(source, ())}
        keys = dict.fromkeys(key for member in members for key in member.params)
        fixed[name] = [
            key for key in keys if key not in free and len({member.params.get(key) for member in members}) > 1
        ]
    return fixed


def _spread(summary: PointSummary, metric: str) -> float | None:
    return measure_of(metric).scale * summary.spreads[metric] if metric in summary.spreads else None


def _plane_mark(trial: TrialResult, metric: str, axes: Axes) -> PlaneMark:
    count = trial.metrics.get("clusters/num_clusters")
    return PlaneMark(
        trial=trial.name,
        label=_without_temperature(trial),
        information=trial.metrics[axes.metrics[0]],
        rest=trial.metrics[axes.metrics[1]],
        accuracy=measure_of(metric).scale * trial.metrics[metric],
        num_clusters=None if count is None else int(count),
        reason=trial.reason,
    )


def _corners(sweeps: Sequence[Sweep]) -> tuple[Corner, ...]:
    trials = [trial for sweep in sweeps for trial in sweep.trials]
    name = "clusters/label_entropy_bits"
    label_bits = next((trial.metrics[name] for trial in trials if name in trial.metrics), None)
    if label_bits is None:
        return ()
    name = "clusters/entropy_bits"
    of_instances = (t.metrics[name] for t in trials if t.role is Role.INFONCE and name in t.metrics)
    num_images = sweeps[0].num_images
    instance_bits = next(of_instances, None) if num_images is None else math.log2(num_images)
    corners = [Corner("SupCon (labels)", label_bits, 0.0)]
    if instance_bits is not None:
        corners.append(Corner("InfoNCE (instances)", label_bits, instance_bits - label_bits))
    return tuple(corners)


def _numbers(sweeps: Sequence[Sweep]) -> dict[float | None, int]:
    """Numbers of the temperatures, or of their ranges, from 0 by rising value."""
    named = bands(trial.temperature for sweep in sweeps for trial in sweep.trials)
    return {value: number for value, (number, _) in named.items()}


def _shown_metric(sweeps: Sequence[Sweep], metric: str) -> str:
    """In words; the charts show what the trials were ranked by, which those that ended early have too."""
    on_validation = any(sweep.num_validation_images is not None for sweep in sweeps)
    return metric_name(metric) + (", validation images" if on_validation else "")


def _prefix(sweep: Sweep, sweeps: Sequence[Sweep]) -> str:
    return f"{sweep.name}, " if len(sweeps) > 1 else ""


def _group_name(trial: TrialResult, temperature: str) -> str:
    parts = ["reference"] if trial.role.is_reference else []
    parts += [temperature] if temperature else []
    parts += [] if trial.is_finished else ["ended early"]
    return ", ".join(parts) or "trials"


def _with_temperature(name: str, trial: TrialResult) -> str:
    return name if trial.temperature is None else f"{name}, t={trial.temperature:g}"


def _without_temperature(trial: TrialResult) -> str:
    """The point's name without its temperature, which the symbol tells: `k=50`."""
    shown = "" if trial.temperature is None else f"t={trial.temperature:.4g}"
    return " ".join(part for part in trial.point.split(" ") if part != shown) or trial.source


def _level_label(trial: TrialResult) -> str:
    """The role with what else the point sets, as in `SupCon lr=0.1`."""
    known = {"infonce", "supcon", "supervised", "instance", "labels", "cl-infonce"}
    rest = [part for part in _without_temperature(trial).split(" ") if part not in known]
    return " ".join([str(trial.role), *rest])
