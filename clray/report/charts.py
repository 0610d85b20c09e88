"""The charts of a sweep for a page: what `assets/chart.js` draws, as plain trees of numbers and text."""

from typing import Any

from clray.report.figures import INFORMATION_AXIS, REST_AXIS, Granularity, Plane, PlaneMark
from clray.report.roles import Role
from clray.report.text import shortened, visible

DASHES = {Role.INFONCE: "dash", Role.SUPCON: "dot", Role.SUPERVISED: "dashdot", None: "solid"}


def plane_chart(plane: Plane) -> dict[str, Any]:
    """Accuracy as colour over I(Z;T) and H(Z|T), a symbol for each temperature; trials ended early are open."""
    low, high = plane.accuracy_range
    return {
        "title": "Information plane",
        "about": "Accuracy over what the clusters tell about the labels and what they hold besides.",
        "xLabel": INFORMATION_AXIS,
        "xShort": "I(Z;T), bits",
        "yLabel": REST_AXIS,
        "yShort": "H(Z|T), bits",
        "height": 560,
        "rings": [{"name": each.name, "x": each.information, "y": each.rest} for each in plane.corners],
        "scale": {
            "label": f"{plane.metric} (%)",
            "low": low,
            "high": high,
            "floor": plane.floor,
            "floorName": "" if plane.floor is None else f"untrained encoder, {plane.floor:.1f} %",
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
                    [mark.information, mark.rest, None, mark.accuracy, _told(mark, plane.metric)]
                    for mark in group.marks
                ],
            }
            for group in plane.groups
        ],
    }  # fmt: skip


def granularity_chart(granularity: Granularity) -> dict[str, Any]:
    """A line for each source and temperature with the spread of its repeats; references as levels."""
    return {
        "title": "Accuracy over granularity",
        "xLabel": "number of clusters",
        "yLabel": f"{granularity.metric} (%)",
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
                    [mark.num_clusters, mark.mean, mark.spread, None,
                     [visible(mark.point), f"{mark.num_clusters:,} clusters", f"{mark.mean:.1f} %{_plus(mark.spread)}"]]
                    for mark in line.marks
                ],
            }
            for line in granularity.lines
        ],
        "levels": [
            {
                "name": f"{shortened(level.name)}, {level.mean:.1f} %",
                "color": level.number,
                "dash": DASHES[level.role],
                "y": level.mean,
                "spread": level.spread,
            }
            for level in granularity.levels
        ],
    }  # fmt: skip


def _told(mark: PlaneMark, metric: str) -> list[str]:
    lines = [visible(mark.trial), f"{metric} {mark.accuracy:.1f} %"]
    lines += [] if mark.num_clusters is None else [f"{mark.num_clusters:,} clusters"]
    lines.append(f"I(Z;T) {mark.information:.2f} bits, H(Z|T) {mark.rest:.2f} bits")
    return lines + ([] if mark.reason is None else [visible(mark.reason)])


def _plus(spread: float | None) -> str:
    return "" if spread is None else f" ± {spread:.1f}"
