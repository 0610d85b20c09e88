"""The charts of a sweep as HTML with hover, by Plotly."""

import plotly.graph_objects as go
from plotly.colors import qualitative

from clray.report.figures import INFORMATION_AXIS, REST_AXIS, Granularity, Plane, PlaneMark
from clray.report.roles import Role
from clray.report.text import as_html, shortened

SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
DASHES = {Role.INFONCE: "dash", Role.SUPCON: "dot", Role.SUPERVISED: "dashdot", None: "solid"}


def plane_chart(plane: Plane) -> go.Figure:
    """Accuracy as colour over I(Z;T) and H(Z|T), a symbol for each temperature; trials ended early are open."""
    figure = go.Figure()
    low, high = plane.accuracy_range
    if plane.corners:
        figure.add_scatter(
            x=[corner.information for corner in plane.corners],
            y=[corner.rest for corner in plane.corners],
            text=[as_html(corner.name) for corner in plane.corners],
            mode="markers", hovertemplate="%{text}<extra></extra>", showlegend=False,
            marker={"symbol": "circle-open", "size": 26, "color": "#999"},
        )  # fmt: skip
    for number, group in enumerate(plane.groups):
        figure.add_scatter(
            x=[mark.information for mark in group.marks],
            y=[mark.rest for mark in group.marks],
            text=[_hover(mark, plane.metric) for mark in group.marks],
            name=as_html(shortened(group.name)),
            mode="markers",
            hovertemplate="%{text}<extra></extra>",
            marker={
                "color": [mark.accuracy for mark in group.marks],
                "cmin": low,
                "cmax": high,
                "colorscale": "Viridis",
                "showscale": number == 0,
                "colorbar": {"title": f"{plane.metric} (%)"},
                "symbol": SYMBOLS[group.number % len(SYMBOLS)] + ("-open" if group.is_early else ""),
                "size": 12,
                "line": {"width": 2 if group.is_reference else 0.5, "color": "#888" if group.is_reference else "#222"},
            },
        )
    floor = "" if plane.floor is None else f" (untrained encoder {plane.floor:.1f} %)"
    figure.update_layout(
        title=f"Information plane{floor}",
        xaxis_title=INFORMATION_AXIS,
        yaxis_title=REST_AXIS,
        legend={"orientation": "h", "y": -0.2},
        template="plotly_white",
        height=560,
    )
    return figure


def granularity_chart(granularity: Granularity) -> go.Figure:
    """A line for each source and temperature with the spread of its repeats; references as levels."""
    figure = go.Figure()
    colours = qualitative.D3
    for line in granularity.lines:
        figure.add_scatter(
            x=[mark.num_clusters for mark in line.marks],
            y=[mark.mean for mark in line.marks],
            error_y={"array": [mark.spread or 0.0 for mark in line.marks]},
            text=[as_html(mark.point) for mark in line.marks],
            hovertemplate="%{text}<br>%{x} clusters<br>%{y:.1f} %<extra></extra>",
            name=as_html(shortened(line.name)),
            mode="lines+markers" if line.is_joined else "markers",
            marker={"symbol": SYMBOLS[line.setting % len(SYMBOLS)], "size": 9},
            line={"color": colours[line.number % len(colours)]},
        )
    counts = [mark.num_clusters for line in granularity.lines for mark in line.marks] or [1, 10]
    for level in granularity.levels:
        colour = "#666" if level.number is None else colours[level.number % len(colours)]
        figure.add_scatter(
            x=[min(counts), max(counts)],
            y=[level.mean] * 2,
            error_y={"array": [level.spread or 0.0] * 2},
            name=as_html(shortened(level.name)),
            mode="lines",
            hovertemplate=f"{as_html(level.name)}<br>%{{y:.1f}} %<extra></extra>",
            line={"dash": DASHES[level.role], "width": 1.5, "color": colour},
        )
    figure.update_layout(
        title="Accuracy over granularity",
        xaxis={"title": "number of clusters", "type": "log"},
        yaxis_title=f"{granularity.metric} (%)",
        template="plotly_white",
        height=480,
    )
    return figure


def _hover(mark: PlaneMark, metric: str) -> str:
    lines = [f"<b>{as_html(mark.trial)}</b>", f"{metric} {mark.accuracy:.1f} %"]
    if mark.num_clusters is not None:
        lines.append(f"{mark.num_clusters} clusters")
    lines.append(f"I(Z;T) {mark.information:.2f} bits, H(Z|T) {mark.rest:.2f} bits")
    return "<br>".join([*lines, *([] if mark.reason is None else [as_html(mark.reason)])])
