"""A sweep, or two side by side, as one HTML file that needs no network: the table and the pictures, with hover."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clray.report.answer import NO_TRIAL, answer_of, sentences
from clray.report.charts import granularity_chart, plane_chart
from clray.report.correlation import correlations, describe
from clray.report.figures import granularity, plane
from clray.report.html import document, json_block, write_whole
from clray.report.measures import measure_of
from clray.report.results import Sweep
from clray.report.summary import ACCURACIES, as_rows, columns_of, header_of, summarize
from clray.report.text import as_html

MAX_ROWS = 300
"""Of a table, which a page shows at once."""


def write_page(sweeps: list[Sweep], path: Path, *, clusters: str | None = None) -> Path:
    """Write the page; the first sweep is the one it is about, a second one is compared with it, by its metric.

    Args:
        clusters: the file beside it that shows the clusters of the best point.
    """
    metric = sweeps[0].metric
    link = f'<p><a href="{as_html(quote(clusters))}">See the clusters of the best point</a></p>' if clusters else ""
    first, *others = [_section(sweep, metric, link if sweep is sweeps[0] else "") for sweep in sweeps]
    if len(sweeps) == 2:
        others.append(_comparison(sweeps[0], sweeps[1], metric))
    charts = _chart("plane", plane_chart(plane(sweeps, metric)))
    charts += _chart("granularity", granularity_chart(granularity(sweeps, metric)))
    title = f"What clusters were worth: {' and '.join(sweep.name for sweep in sweeps)}"
    sections = "".join(f'<section class="panel">{section}</section>' for section in others)
    body = f'<main><h1>{as_html(title)}</h1><section class="panel">{first}</section>{charts}{sections}</main>'
    return write_whole(document(title, body, styles=("page.css",), scripts=("chart.js",)), path)


def comparison_rows(first: Sweep, second: Sweep, metric: str = ACCURACIES[0]) -> list[tuple[str, str, str, str]]:
    """For each point of both sweeps: its name, its accuracy in percent in either, and the difference."""
    measure = measure_of(metric)
    digits = measure.digits
    theirs = {each.point: each for each in summarize(second.trials, metric)}
    rows = []
    for each in summarize(first.trials, metric):
        other = theirs.get(each.point)
        if other is not None and metric in each.means and metric in other.means:
            mine, yours = measure.scale * each.means[metric], measure.scale * other.means[metric]
            shown = (f"{mine:.{digits}f}", f"{yours:.{digits}f}", f"{yours - mine:+.{digits}f}")
            rows.append((each.point, *shown))
    return rows


def _section(sweep: Sweep, metric: str, link: str = "") -> str:
    answer = answer_of(sweep, metric)
    if answer is None:
        return f"<h2>{as_html(sweep.name)}</h2><p>{NO_TRIAL}</p>"
    first, *rest = sentences(answer)
    summaries = summarize(sweep.trials, metric)
    marked = next(number for number, each in enumerate(summaries) if each.point == answer.best.point)
    # The best of very many, and the one that the answer names.
    kept = [number for number in range(len(summaries)) if number < MAX_ROWS or number == marked]
    shown, marked = [summaries[number] for number in kept], kept.index(marked)
    lines = "".join(f"<li>{as_html(describe(each))}</li>" for each in correlations(summaries, metric))
    ended = [trial for trial in sweep.trials if not trial.is_finished]
    early = ""
    if ended:
        rows = [(trial.name, trial.reason or trial.state) for trial in ended[:MAX_ROWS]]
        others = _left_out(len(ended) - len(rows), "trials")
        early = f"<h3>Ended early</h3><div class='early'>{_table(('trial', 'why'), rows)}</div>{others}"
    if sweep.skipped:
        reasons = {trial.point: trial.reason or trial.state for trial in sweep.skipped}
        rows, others = list(reasons.items())[:MAX_ROWS], _left_out(len(reasons) - MAX_ROWS, "points")
        early += f"<h3>Not trained</h3><div class='early'>{_table(('point', 'why'), rows)}</div>{others}"
    table = _table(header_of(summaries), as_rows(shown, columns_of(summaries)), marked=marked) + _left_out(
        len(summaries) - len(shown), "points"
    )
    told = f"<details><summary>Correlations of accuracy with information</summary><ul>{lines}</ul></details>"
    return (
        f'<h2>{as_html(sweep.name)}</h2><p class="answer">{as_html(first)}</p><p>{as_html(" ".join(rest))}</p>{link}'
        f"{table}{told if lines else ''}{early}"
    )


def _comparison(first: Sweep, second: Sweep, metric: str) -> str:
    rows = comparison_rows(first, second, metric)
    if not rows:
        return '<h2>Compared</h2><p class="note">The sweeps have no point in common.</p>'
    table = _table(("point", first.name, second.name, "difference"), rows[:MAX_ROWS])
    return f"<h2>Compared</h2>{table}{_left_out(len(rows[MAX_ROWS:]), 'points')}"


def _chart(name: str, chart: dict[str, Any]) -> str:
    return (
        f'<section class="panel"><h2>{as_html(chart["title"])}</h2><div data-chart="{name}"></div>'
        f"{json_block(name, chart)}</section>"
    )


def _left_out(count: int, what: str) -> str:
    """A line where a table does not show all."""
    return f'<p class="note">and {count:,} more {what}, in the sweep\'s results.json</p>' if count > 0 else ""


def _table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, marked: int | None = None) -> str:
    head = "".join(f"<th>{as_html(cell)}</th>" for cell in header)
    lines = []
    for number, row in enumerate(rows):
        mark = ' class="best"' if number == marked else ""
        lines.append(f"<tr{mark}>" + "".join(f"<td>{as_html(cell)}</td>" for cell in row) + "</tr>")
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
