"""How the clusters of a run changed by epoch, as charts for a page."""

from collections.abc import Sequence
from typing import Any

from clray.training.metrics import Metrics

INFORMATION = (
    ("I(Z;T): about the labels", "clusters/mutual_information_bits"),
    ("above chance", "clusters/adjusted_mutual_information_bits"),
    ("H(Z|T): besides", "clusters/conditional_entropy_bits"),
    ("H(Z)", "clusters/entropy_bits"),
)
SHARES = (
    ("images that changed cluster", "recluster/moved_fraction"),
    ("linear accuracy", "eval/linear_accuracy"),
    ("k-NN accuracy", "eval/knn_accuracy"),
    ("linear average precision", "eval/linear_mean_average_precision"),
    ("k-NN average precision", "eval/knn_mean_average_precision"),
)


def history_charts(history: Sequence[Metrics]) -> list[dict[str, Any]]:
    """Charts of what the clusters tell, in bits, and of what moved, in percent; without those that have nothing."""
    has_labels = any(INFORMATION[0][1] in metrics for metrics in history)
    bits = INFORMATION[:3] if has_labels else INFORMATION[3:]
    charts = [
        _chart("What the clusters tell", "bits", bits, history, 1.0),
        _chart("What moved, and accuracy", "%", SHARES, history, 100.0),
    ]
    return [chart for chart in charts if chart["series"]]


def _chart(
    title: str, unit: str, lines: Sequence[tuple[str, str]], history: Sequence[Metrics], scale: float
) -> dict[str, Any]:  # fmt: skip
    series = []
    for number, (name, metric) in enumerate(lines):
        points = [
            [metrics["epoch"], scale * metrics[metric], None, None,
             [f"epoch {metrics['epoch']:g}", f"{name} {scale * metrics[metric]:.4g} {unit}"]]
            for metrics in history
            if metric in metrics
        ]  # fmt: skip
        if points:
            series.append(
                {"name": name, "color": number, "line": True, "symbol": 0, "open": False, "muted": False,
                 "points": points}
            )  # fmt: skip
    return {
        "title": title, "xLabel": "epoch", "yLabel": unit, "whole": True, "height": 300, "radius": 4, "series": series
    }  # fmt: skip
