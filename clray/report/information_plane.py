"""Accuracy as colour over I(Z;T) and H(Z|T): which clusters tell about the labels, and what they were worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

MARKERS = ("o", "s", "^", "D", "v", "P")
MAX_LABELS = 20
MAX_SHOWN = 3
LETTER_WIDTH, LETTER_HEIGHT = 0.0125, 0.04
"""Of a label, as shares of the picture."""


@dataclass(frozen=True)
class Point:
    """One trial at its end.

    Attributes:
        mutual_information_bits: I(Z;T).
        conditional_entropy_bits: H(Z|T).
        accuracy: in 0..1, the colour.
        label: short text beside the marker, such as `K=50`.
        group: what the marker's shape tells, such as `t=0.2`.
        num_clusters: its granularity.
    """

    mutual_information_bits: float
    conditional_entropy_bits: float
    accuracy: float
    label: str
    group: str
    num_clusters: int


def draw_information_plane(
    points: Sequence[Point],
    path: Path,
    *,
    label_entropy_bits: float,
    instance_entropy_bits: float,
    title: str,
    metric: str,
) -> Path:
    """Write the picture as PNG.

    Args:
        label_entropy_bits: H(T). SupCon sits at (H(T), 0).
        instance_entropy_bits: log2 of the number of training images. InfoNCE sits at (H(T), log2 N - H(T)).
    """
    figure, axes = plt.subplots(figsize=(8.0, 5.6), layout="constrained")
    corners = {
        "SupCon (labels)": (label_entropy_bits, 0.0, -16),
        "InfoNCE (instances)": (label_entropy_bits, instance_entropy_bits - label_entropy_bits, 14),
    }
    for name, (x, y, offset) in corners.items():
        axes.scatter([x], [y], s=380, facecolors="none", edgecolors="0.45", linewidths=1.2, zorder=1)
        axes.annotate(
            name, (x, y), xytext=(0, offset), textcoords="offset points", ha="center", va="center",
            fontsize=9, color="0.35",
        )  # fmt: skip
    groups = sorted({point.group for point in points})
    accuracies = [100 * point.accuracy for point in points]
    low, high = min(accuracies), max(accuracies)
    if low == high:
        low, high = low - 1, high + 1
    drawn = None
    for number, group in enumerate(groups):
        members = [point for point in points if point.group == group]
        drawn = axes.scatter(
            [point.mutual_information_bits for point in members],
            [point.conditional_entropy_bits for point in members],
            c=[100 * point.accuracy for point in members],
            # Each group is smaller than the one before, so that trials at the same place lie in each other.
            s=170 * 0.45**number if number < 3 else 30,
            vmin=low, vmax=high, cmap="viridis",
            marker=MARKERS[number % len(MARKERS)], edgecolors="black", linewidths=0.6, zorder=3 + number,
        )  # fmt: skip
    for label, x, y, shown in _labels(points):
        axes.annotate(
            f"{label}  {shown}", (x, y), xytext=(-11, 0), textcoords="offset points", ha="right", va="center",
            fontsize=7.5, color="0.2",
        )  # fmt: skip
    if drawn is not None:
        figure.colorbar(drawn, ax=axes, label=f"{metric} (%)")
    if 1 < len(groups) <= len(MARKERS):
        handles = [
            Line2D([], [], marker=MARKERS[i % len(MARKERS)], linestyle="", markerfacecolor="0.8",
                   markeredgecolor="black", label=group)
            for i, group in enumerate(groups)
        ]  # fmt: skip
        axes.legend(handles=handles, loc="upper left", frameon=False)
    axes.margins(x=0.14, y=0.1)
    left, right = axes.get_xlim()
    axes.set_xlim(left - 0.12 * (right - left), right)  # room for the leftmost text
    axes.set_xlabel("I(Z;T), bits: what the clusters tell about the labels")
    axes.set_ylabel("H(Z|T), bits: what the clusters hold besides")
    axes.set_title(title)
    axes.grid(alpha=0.25)
    return save_figure(figure, path)


def draw_granularity(points: Sequence[Point], path: Path) -> Path:
    """Accuracy over the number of clusters, a line for each group, with the spread of its repeats; written as PNG."""
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    for number, group in enumerate(sorted({point.group for point in points})):
        by_count: dict[int, list[float]] = {}
        for point in points:
            if point.group == group:
                by_count.setdefault(point.num_clusters, []).append(100 * point.accuracy)
        counts = sorted(by_count)
        means = [fmean(by_count[count]) for count in counts]
        spreads = [stdev(by_count[count]) if len(by_count[count]) > 1 else 0.0 for count in counts]
        axes.errorbar(
            counts, means, yerr=spreads if any(spreads) else None, marker=MARKERS[number % len(MARKERS)], capsize=3,
            label=group or None,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlabel("number of clusters")
    axes.set_ylabel("accuracy (%)")
    if any(point.group for point in points):
        axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    return save_figure(figure, path)


def save_figure(figure: Figure, path: Path, dpi: int = 150) -> Path:
    """Write a PNG in one piece, and let go of the figure."""
    partial = path.with_suffix(".partial.png")
    figure.savefig(partial, dpi=dpi)
    plt.close(figure)
    return partial.replace(path)


def _labels(points: Sequence[Point]) -> list[tuple[str, float, float, str]]:
    """One text per kind of clusters, for its leftmost point: (label, x, y, accuracies in the order of the groups)."""
    labels = []
    for label in dict.fromkeys(point.label for point in points):
        members = sorted((point for point in points if point.label == label), key=lambda point: point.group)
        leftmost = min(members, key=lambda point: point.mutual_information_bits)
        shown = [f"{100 * point.accuracy:.1f}" for point in members]
        if len(shown) > MAX_SHOWN:
            shown = [f"best {max(100 * point.accuracy for point in members):.1f}"]
        place = leftmost.mutual_information_bits, leftmost.conditional_entropy_bits
        labels.append((label, *place, " / ".join(shown)))
    return _without_overlaps(labels) if len(labels) <= MAX_LABELS else []


def _without_overlaps(labels: list[tuple[str, float, float, str]]) -> list[tuple[str, float, float, str]]:
    """The labels whose text, which runs to the left of its point, touches none of those kept before."""
    width, height = (max(values) - min(values) for values in zip(*((x, y) for _, x, y, _ in labels), strict=True))
    kept: list[tuple[str, float, float, str]] = []
    for label, x, y, shown in labels:
        room = LETTER_WIDTH * width * (len(label) + len(shown) + 2)
        if not any(abs(x - other[1]) < room and abs(y - other[2]) < LETTER_HEIGHT * height for other in kept):
            kept.append((label, x, y, shown))
    return kept
