"""A sweep, or two side by side, as one HTML file that needs no network: the table and the pictures, with hover."""

import math
from html import escape
from itertools import product
from pathlib import Path
from statistics import fmean

import plotly.graph_objects as go

from clray.report.results import Sweep, TrialResult
from clray.report.summary import (
    ACCURACIES,
    HEADER,
    INFORMATION,
    PointSummary,
    as_rows,
    correlations,
    describe,
    describe_best,
    summarize,
)

SYMBOLS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross")
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .25rem .8rem; text-align: right }
td:first-child, th:first-child { text-align: left } tr:nth-child(even) { background: #f5f5f5 }
th { border-bottom: 1px solid #999 } .best { font-weight: 600 } .note { color: #666 }
"""


def write_page(sweeps: list[Sweep], path: Path, metric: str = ACCURACIES[0]) -> Path:
    """Write the page; the first sweep is the one it is about, a second one is compared with it."""
    body = [_section(sweep, metric) for sweep in sweeps]
    if len(sweeps) == 2:
        body.append(_comparison(*sweeps, metric))
    # The library for the pictures, about 5 MB, stands in the page once.
    plane = _plane(sweeps, metric).to_html(full_html=False, include_plotlyjs=True)
    granularity = _granularity(sweeps, metric).to_html(full_html=False, include_plotlyjs=False)
    title = escape(" and ".join(sweep.name for sweep in sweeps))
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>What clusters were worth: {title}</h1>"
        f"{body[0]}{plane}{granularity}{''.join(body[1:])}</body></html>"
    )
    partial = path.with_name(path.name + ".partial")
    partial.write_text(page, encoding="utf-8")
    return partial.replace(path)


def comparison_rows(first: Sweep, second: Sweep, metric: str = ACCURACIES[0]) -> list[tuple[str, str, str, str]]:
    """For each point of both sweeps: its name, its accuracy in percent in either, and the difference."""
    theirs = {each.point: each for each in summarize(second.trials, metric)}
    rows = []
    for each in summarize(first.trials, metric):
        other = theirs.get(each.point)
        if other is not None and metric in each.means and metric in other.means:
            mine, yours = 100 * each.means[metric], 100 * other.means[metric]
            rows.append((each.point, f"{mine:.1f}", f"{yours:.1f}", f"{yours - mine:+.1f}"))
    return rows


def _section(sweep: Sweep, metric: str) -> str:
    summaries = summarize(sweep.trials, metric)
    if not summaries:
        return f"<h2>{escape(sweep.name)}</h2><p>No trial has finished.</p>"
    lines = "".join(f"<li>{escape(describe(each))}</li>" for each in correlations(summaries, metric))
    ended = [trial for trial in sweep.trials if trial.state != "finished"]
    early = ""
    if ended:
        rows = [(_name(trial), trial.reason or trial.state) for trial in ended]
        early = f"<h3>Ended early</h3>{_table(('trial', 'why'), rows)}"
    return (
        f"<h2>{escape(sweep.name)}</h2><p>{escape(describe_best(summaries, len(sweep.trials), metric))}</p>"
        f"{_table(HEADER, as_rows(summaries), marks_first=True)}<ul>{lines}</ul>{early}"
    )


def _comparison(first: Sweep, second: Sweep, metric: str) -> str:
    rows = comparison_rows(first, second, metric)
    if not rows:
        return '<h2>Compared</h2><p class="note">The sweeps have no point in common.</p>'
    return f"<h2>Compared</h2>{_table(('point', first.name, second.name, 'difference'), rows)}"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]], *, marks_first: bool = False) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    lines = []
    for number, row in enumerate(rows):
        mark = ' class="best"' if marks_first and number == 0 else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def _plane(sweeps: list[Sweep], metric: str) -> go.Figure:
    """Accuracy as colour over I(Z;T) and H(Z|T), a symbol for each temperature; trials ended early are open."""
    figure = go.Figure()
    trials = [trial for sweep in sweeps for trial in sweep.trials if {metric, *INFORMATION} <= trial.metrics.keys()]
    accuracies = [100 * trial.metrics[metric] for trial in trials] or [0.0]
    temperatures = sorted({_temperature(trial) for trial in trials})
    for sweep, (number, temperature), state in product(sweeps, enumerate(temperatures), ("finished", "pruned")):
        members = [
            trial
            for trial in sweep.trials
            if trial in trials and _temperature(trial) == temperature and trial.state == state
        ]
        if not members:
            continue
        is_finished = state == "finished"
        prefix = f"{sweep.name}, " if len(sweeps) > 1 else ""
        figure.add_scatter(
            x=[trial.metrics[INFORMATION[0]] for trial in members],
            y=[trial.metrics[INFORMATION[1]] for trial in members],
            text=[_hover(trial, metric) for trial in members],
            name=f"{prefix}t={temperature:g}{'' if is_finished else ', ended early'}",
            mode="markers",
            hovertemplate="%{text}<extra></extra>",
            marker={
                "color": [100 * trial.metrics[metric] for trial in members],
                "cmin": min(accuracies),
                "cmax": max(accuracies),
                "colorscale": "Viridis",
                "showscale": len(figure.data) == 0,
                "colorbar": {"title": "accuracy (%)"},
                "symbol": SYMBOLS[number % len(SYMBOLS)] + ("" if is_finished else "-open"),
                "size": 12,
            },
        )
    figure.update_layout(
        title="Information plane",
        xaxis_title="I(Z;T), bits: what the clusters tell about the labels",
        yaxis_title="H(Z|T), bits: what they hold besides",
        legend={"orientation": "h", "y": -0.2},
        template="plotly_white",
        height=560,
    )
    return figure


def _granularity(sweeps: list[Sweep], metric: str) -> go.Figure:
    """Accuracy over the number of clusters, a line for each temperature."""
    figure = go.Figure()
    for sweep in sweeps:
        summaries = {each.point: each for each in summarize(sweep.trials, metric)}
        lines: dict[float, dict[float, list[PointSummary]]] = {}
        for trial in sweep.trials:
            count = trial.metrics.get("clusters/num_clusters")
            if trial.point in summaries and count is not None and metric in trial.metrics:
                summary = summaries.pop(trial.point)
                lines.setdefault(_temperature(trial), {}).setdefault(count, []).append(summary)
        for temperature, by_count in sorted(lines.items()):
            counts = sorted(by_count)
            figure.add_scatter(
                x=counts,
                y=[fmean(100 * each.means[metric] for each in by_count[count]) for count in counts],
                error_y={"array": [100 * max(e.spreads.get(metric, 0.0) for e in by_count[c]) for c in counts]},
                text=[", ".join(each.point for each in by_count[count]) for count in counts],
                hovertemplate="%{text}<br>%{y:.1f} %<extra></extra>",
                name=f"{sweep.name + ', ' if len(sweeps) > 1 else ''}t={temperature:g}",
                mode="lines+markers",
            )
    figure.update_layout(
        title="Accuracy over granularity",
        xaxis={"title": "number of clusters", "type": "log"},
        yaxis_title="accuracy (%)",
        template="plotly_white",
        height=440,
    )
    return figure


def _temperature(trial: TrialResult) -> float:
    return float(trial.params.get("objective.temperature", math.nan))


def _name(trial: TrialResult) -> str:
    return f"{trial.point} seed={trial.seed}"


def _hover(trial: TrialResult, metric: str) -> str:
    metrics = trial.metrics
    lines = [
        f"<b>{escape(_name(trial))}</b>",
        f"accuracy {100 * metrics[metric]:.1f} %",
        f"{metrics.get('clusters/num_clusters', math.nan):.0f} clusters",
        f"I(Z;T) {metrics[INFORMATION[0]]:.2f} bits, H(Z|T) {metrics[INFORMATION[1]]:.2f} bits",
    ]
    return "<br>".join(lines + ([escape(trial.reason)] if trial.reason else []))
