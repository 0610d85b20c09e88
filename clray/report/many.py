"""Charts of sweeps with thousands of trials: temperatures by range, and one mark for trials that lie together."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean, stdev

from clray.report.marks import Line, LineMark, PlaneGroup, PlaneMark
from clray.report.measures import PERCENT, Measure

MAX_MARKS = 2000
"""Of a chart; a page with more takes seconds to open."""
MAX_TEMPERATURES = 12
NUM_BANDS = 6
MAX_COUNTS = 40
"""Numbers of clusters of a thinned line."""


def bands(temperatures: Iterable[float | None]) -> dict[float | None, tuple[int, str]]:
    """Number, from 0 by rising value, and name of each; of more than 12 those of one of six ranges of equal numbers."""
    values = sorted({value for value in temperatures if value is not None})
    size = 1 if len(values) <= MAX_TEMPERATURES else math.ceil(len(values) / NUM_BANDS)
    found: dict[float | None, tuple[int, str]] = {}
    for number, start in enumerate(range(0, len(values), size)):
        part = values[start : start + size]
        name = f"t={part[0]:g}" if len(part) == 1 else f"t={part[0]:.3g} to {part[-1]:.3g}"
        found |= dict.fromkeys(part, (number, name))
    return {**found, None: (1 + max((number for number, _ in found.values()), default=-1), "")}


def thinned_groups(groups: Sequence["PlaneGroup"], measure: Measure = PERCENT) -> tuple["PlaneGroup", ...]:
    """The groups as they are, or of more than 2,000 trials one mark for each group and cell of a grid: their means."""
    marks = [mark for group in groups for mark in group.marks]
    if len(marks) <= MAX_MARKS:
        return tuple(groups)
    side = max(1, math.isqrt(MAX_MARKS // len(groups)))
    across, up = _cells([mark.information for mark in marks], side), _cells([mark.rest for mark in marks], side)
    thinned = []
    for group in groups:
        cells: dict[tuple[int, int], list[PlaneMark]] = {}
        for mark in group.marks:
            cells.setdefault((across(mark.information), up(mark.rest)), []).append(mark)
        thinned.append(replace(group, marks=tuple(_mean_mark(members, measure) for members in cells.values())))
    return tuple(thinned)


def thinned_lines(lines: Sequence["Line"]) -> tuple["Line", ...]:
    """The lines as they are, or with more than 2,000 points in all one mark for numbers of clusters that are close."""
    if sum(len(line.marks) for line in lines) <= MAX_MARKS:
        return tuple(lines)
    place = _cells([math.log(mark.num_clusters) for line in lines for mark in line.marks], MAX_COUNTS)
    thinned = []
    for line in lines:
        parts: dict[int, list[LineMark]] = {}
        for mark in line.marks:
            parts.setdefault(place(math.log(mark.num_clusters)), []).append(mark)
        thinned.append(replace(line, marks=tuple(_mean_point(parts[number]) for number in sorted(parts))))
    return tuple(thinned)


def _cells(values: Sequence[float], count: int) -> Callable[[float], int]:
    """From values to the number of one of `count` equal parts of their range."""
    low, width = min(values), (max(values) - min(values)) / count or 1.0
    return lambda value: min(count - 1, int((value - low) / width))


def _mean_mark(members: list["PlaneMark"], measure: Measure) -> "PlaneMark":
    best = max(members, key=lambda mark: mark.accuracy)
    if len(members) == 1:
        return best
    return replace(
        best,
        trial=f"{len(members)} trials, the best of them {best.trial} with {measure.text(best.accuracy)}",
        label=f"{len(members)} trials",
        information=fmean(mark.information for mark in members),
        rest=fmean(mark.rest for mark in members),
        accuracy=fmean(mark.accuracy for mark in members),
        num_clusters=None,
        reason=None,
    )


def _mean_point(members: list["LineMark"]) -> "LineMark":
    if len(members) == 1:
        return members[0]
    means = [mark.mean for mark in members]
    return replace(
        members[0],
        point=f"{len(members)} points",
        num_clusters=round(math.exp(fmean(math.log(mark.num_clusters) for mark in members))),
        mean=fmean(means),
        spread=stdev(means),
    )
