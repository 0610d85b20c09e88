"""The charts of a sweep as PNG, by Matplotlib."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from clray.report.marks import Granularity, Line, Plane, PlaneMark
from clray.report.roles import Role
from clray.report.text import shortened

MARKERS = ("o", "s", "^", "D", "v", "P", "<", ">", "X", "h")
DASHES = {Role.INFONCE: (0, (6, 3)), Role.SUPCON: (0, (1, 1.5)), Role.SUPERVISED: (0, (4, 2, 1, 2)), None: "-"}
MAX_LABELS = 20
MAX_SHOWN = 3
MAX_TICKS = 10
MAX_LEGEND = 12
LETTER_WIDTH, LETTER_HEIGHT = 0.0125, 0.04
"""Of a label, as shares of the picture."""
Text = tuple[str, float, float]


def draw_plane(plane: Plane, path: Path, title: str) -> Path:
    """Accuracy as colour over I(Z;T) and H(Z|T), a symbol for each temperature, open where a trial ended early."""
    figure, axes = plt.subplots(figsize=(8.0, 5.6), layout="constrained")
    for corner in plane.corners:
        place = (corner.information, corner.rest)
        axes.scatter([place[0]], [place[1]], s=380, facecolors="none", edgecolors="0.45", linewidths=1.2, zorder=1)
        _annotate(axes, corner.name, place, (0, -16 if corner.rest == 0 else 14), "center", 9)
    low, high = plane.accuracy_range
    scale = ScalarMappable(Normalize(low, high), "viridis")
    colours = scale.cmap(np.arange(256)).tolist()
    for group in plane.groups:
        places = [round(255 * (mark.accuracy - low) / (high - low)) for mark in group.marks]
        shown = [to_hex((red, green, blue)) for red, green, blue, _ in (colours[place] for place in places)]
        axes.scatter(
            [mark.information for mark in group.marks], [mark.rest for mark in group.marks],
            # Each temperature is smaller than the one before, so that trials at the same place lie in each other.
            s=170 * 0.45**group.number if group.number < 3 else 30,
            facecolors="none" if group.is_early else shown,
            edgecolors=shown if group.is_early else "0.5" if group.is_reference else "black",
            marker=MARKERS[group.number % len(MARKERS)], linewidths=1.0 if group.is_early else 0.6,
            zorder=3 + group.number,
        )  # fmt: skip
    for text, x, y in _labels(plane):
        _annotate(axes, text, (x, y), (-11, 0), "right", 7.5)
    bar = figure.colorbar(scale, ax=axes, label=plane.measure.axis(plane.metric))
    if plane.floor is not None:
        bar.ax.axhline(plane.floor, color="red", linewidth=2.5)
        bar.ax.set_title(f"{plane.start}\n{plane.floor:.{plane.measure.digits}f}", fontsize=7.5, color="red")
    if 1 < len(plane.groups) <= len(MARKERS):
        handles = [
            Line2D([], [], marker=MARKERS[group.number % len(MARKERS)], linestyle="", label=plain(group.name),
                   markerfacecolor="none" if group.is_early else "0.8",
                   markeredgecolor="0.5" if group.is_reference else "black")
            for group in plane.groups
        ]  # fmt: skip
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    axes.margins(x=0.14, y=0.1)
    left, right = axes.get_xlim()
    axes.set_xlim(left - 0.12 * (right - left), right)  # room for the leftmost text
    axes.set_xlabel(plane.axes.labels[0])
    axes.set_ylabel(plane.axes.labels[1])
    axes.set_title(plain(title))
    axes.grid(alpha=0.25)
    return save_figure(figure, path)


def draw_granularity(granularity: Granularity, path: Path) -> Path:
    """A line for each source and temperature with the spread of its repeats; references as levels."""
    figure, axes = plt.subplots(figsize=(7.4, 4.8), layout="constrained")
    colours = plt.rcParams["axes.prop_cycle"].by_key()["color"]
    for line, name in zip(granularity.lines, _legend_names(granularity.lines), strict=True):
        spreads = [mark.spread or 0.0 for mark in line.marks]
        axes.errorbar(
            [mark.num_clusters for mark in line.marks], [mark.mean for mark in line.marks],
            yerr=spreads if any(spreads) else None, capsize=3, linestyle="-" if line.is_joined else "",
            marker=MARKERS[line.setting % len(MARKERS)], color=colours[line.number % len(colours)],
            label=name,
        )  # fmt: skip
    for level in granularity.levels:
        colour = "0.4" if level.number is None else colours[level.number % len(colours)]
        axes.axhline(level.mean, color=colour, linestyle=DASHES[level.role], linewidth=1.3, label=plain(level.name))
        if level.spread:
            axes.axhspan(level.mean - level.spread, level.mean + level.spread, color=colour, alpha=0.1, linewidth=0)
    axes.set_xscale("log")
    counts = sorted({mark.num_clusters for line in granularity.lines for mark in line.marks})
    if 0 < len(counts) <= MAX_TICKS:
        axes.set_xticks(counts, [str(count) for count in counts])
        axes.set_xticks([], minor=True)
    axes.set_xlabel("number of clusters")
    axes.set_ylabel(granularity.measure.axis(granularity.metric))
    if granularity.lines or granularity.levels:
        figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    axes.grid(alpha=0.25)
    return save_figure(figure, path)


def _legend_names(lines: Sequence[Line]) -> list[str]:
    """What a legend says of each line; of many, which would cover the chart, it names those of a colour together."""
    if len(lines) <= MAX_LEGEND:
        return [plain(each.name) for each in lines]
    of_colour: dict[int, list[Line]] = {}
    for each in lines:
        of_colour.setdefault(each.number, []).append(each)
    names: dict[int, str] = {}
    for first, *others in of_colour.values():
        names[id(first)] = plain(f"{first.name} to {others[-1].name}" if others else first.name)
    return [names.get(id(each), "_hidden") for each in lines]  # Matplotlib leaves out what begins so


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> Path:
    """Write a PNG in one piece, and let go of the figure."""
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=dpi)
    plt.close(figure)
    return partial.replace(path)


def plain(text: str) -> str:
    """The text, shortened, as Matplotlib draws it as it stands: its dollar signs would begin formulas."""
    return shortened(text).replace("$", r"\$")


def _annotate(
    axes: Axes, text: str, place: tuple[float, float], offset: tuple[int, int], side: str, size: float
) -> None:
    axes.annotate(
        plain(text), place, xytext=offset, textcoords="offset points", ha=side, va="center", fontsize=size, color="0.2"
    )


def _labels(plane: Plane) -> list[Text]:
    """One text per kind of clusters, for its leftmost point: the label with its accuracies by temperature."""
    by_label: dict[str, dict[int, list[PlaneMark]]] = {}
    for group in plane.groups:
        for mark in group.marks:
            if not group.is_early:
                by_label.setdefault(mark.label, {}).setdefault(group.number, []).append(mark)
    texts = []
    for label, by_number in by_label.items():
        members = [mark for marks in by_number.values() for mark in marks]
        leftmost = min(members, key=lambda mark: mark.information)
        means = [sum(mark.accuracy for mark in marks) / len(marks) for _, marks in sorted(by_number.items())]
        digits = plane.measure.digits
        shown = " / ".join(f"{mean:.{digits}f}" for mean in means)
        if len(means) > MAX_SHOWN:
            shown = f"{min(means):.{digits}f} to {max(means):.{digits}f}"
        texts.append((f"{label}  {shown}", leftmost.information, leftmost.rest))
    return _without_overlaps(texts) if 0 < len(texts) <= MAX_LABELS else []


def _without_overlaps(texts: list[Text]) -> list[Text]:
    """The texts that, running to the left of their points, touch none of those kept before."""
    width, height = (max(values) - min(values) for values in zip(*((x, y) for _, x, y in texts), strict=True))
    kept: list[Text] = []
    for text, x, y in texts:
        room = LETTER_WIDTH * width * len(text)
        if not any(abs(x - other[1]) < room and abs(y - other[2]) < LETTER_HEIGHT * height for other in kept):
            kept.append((text, x, y))
    return kept
