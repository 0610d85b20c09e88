"""The charts of a sweep for a page: what `assets/chart.js` draws, as plain trees of numbers and text."""

from typing import Any

from clray.report.marks import Granularity, LineMark, Plane, PlaneMark
from clray.report.measures import Measure
from clray.report.roles import Role
from clray.report.text import shortened, visible

DASHES = {Role.INFONCE: "dash", Role.SUPCON: "dot", Role.SUPERVISED: "dashdot", None: "solid"}


def plane_chart(plane: Plane) -> dict[str, Any]:
    """Accuracy as colour over I(Z;T) and H(Z|T), a symbol for each temperature; trials ended early are open."""
    low, high = plane.accuracy_range
    return {
        "title": plane.axes.title,
        "about": plane.axes.about,
        "xLabel": plane.axes.labels[0],
        "xShort": plane.axes.names[0] + ("," if plane.axes.units[0] else "") + plane.axes.units[0],
        "yLabel": plane.axes.labels[1],
        "yShort": plane.axes.names[1] + ("," if plane.axes.units[1] else "") + plane.axes.units[1],
        "height": 560,
        "rings": [{"name": each.name, "x": each.information, "y": each.rest} for each in plane.corners],
        "scale": {
            "label": plane.measure.axis(plane.metric),
            "low": low,
            "high": high,
            "floor": plane.floor,
            "floorName": "" if plane.floor is None else f"{plane.start}, {plane.measure.text(plane.floor)}",
        },
        "series": [
            {
                "name": shortened(group.name),
                "color": None,
                "line": False,
                "symbol": group.number,
                "open": group.is_early,
                "muted": group.is_reference,
                "points": [
                    [mark.information, mark.rest, None, mark.accuracy, _told(mark, plane)]
                    for mark in group.marks
                ],
            }
            for group in plane.groups
        ],
    }  # fmt: skip


def granularity_chart(granularity: Granularity) -> dict[str, Any]:
    """A line for each source and temperature with the spread of its repeats; references as levels."""
    return {
        "title": "Accuracy over granularity" if granularity.measure.is_share else "Quality over granularity",
        "xLabel": "number of clusters",
        "yLabel": granularity.measure.axis(granularity.metric),
        "logX": True,
        "height": 480,
        "series": [
            {
                "name": shortened(line.name),
                "color": line.number,
                "line": line.is_joined,
                "symbol": line.setting,
                "open": False,
                "muted": False,
                "points": [
                    [mark.num_clusters, mark.mean, mark.spread, None, _told_of_point(mark, granularity.measure)]
                    for mark in line.marks
                ],
            }
            for line in granularity.lines
        ],
        "levels": [
            {
                "name": f"{shortened(level.name)}, {granularity.measure.text(level.mean)}",
                "color": level.number,
                "dash": DASHES[level.role],
                "y": level.mean,
                "spread": level.spread,
            }
            for level in granularity.levels
        ],
    }  # fmt: skip


def _told(mark: PlaneMark, plane: Plane) -> list[str]:
    lines = [visible(mark.trial), f"{plane.metric} {plane.measure.text(mark.accuracy)}"]
    lines += [] if mark.num_clusters is None else [f"{mark.num_clusters:,} clusters"]
    values = zip(plane.axes.names, (mark.information, mark.rest), plane.axes.units, strict=True)
    lines.append(", ".join(f"{name} {value:.2f}{unit}" for name, value, unit in values))
    return lines + ([] if mark.reason is None else [visible(mark.reason)])


def _told_of_point(mark: LineMark, measure: Measure) -> list[str]:
    spread = "" if mark.spread is None else f" ± {mark.spread:.{measure.digits}f}"
    return [visible(mark.point), f"{mark.num_clusters:,} clusters", measure.text(mark.mean) + spread]
