"""A sweep, or two side by side, as one HTML file that needs no network: the table and the pictures, with hover."""

from collections.abc import Sequence
from pathlib import Path

from clray.report.answer import NO_TRIAL, answer_of, sentences
from clray.report.correlation import correlations, describe
from clray.report.figures import granularity, plane
from clray.report.interactive import granularity_chart, plane_chart
from clray.report.results import Sweep
from clray.report.summary import ACCURACIES, HEADER, as_rows, summarize
from clray.report.text import as_html

RESPONSIVE = {"responsive": True}
MAX_ROWS = 300
"""Of a table, which a page shows at once."""
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0 } td, th { padding: .25rem .8rem; text-align: right }
td:first-child, th:first-child { text-align: left } tr:nth-child(even) { background: #f5f5f5 }
th { border-bottom: 1px solid #999 } .best { font-weight: 600 }
body { overflow-wrap: anywhere } .wide { overflow-x: auto } td, th { overflow-wrap: normal }
td:first-child, .early td { min-width: 9rem; overflow-wrap: anywhere; text-align: left }
.answer { font-size: 1.15rem } .note { color: #666 }
"""


def write_page(sweeps: list[Sweep], path: Path) -> Path:
    """Write the page; the first sweep is the one it is about, a second one is compared with it, by its metric."""
    metric = sweeps[0].metric
    body = [_section(sweep, metric) for sweep in sweeps]
    if len(sweeps) == 2:
        body.append(_comparison(sweeps[0], sweeps[1], metric))
    # The library for the pictures, about 5 MB, stands in the page once.
    charts = plane_chart(plane(sweeps, metric)).to_html(full_html=False, include_plotlyjs=True, config=RESPONSIVE)
    charts += granularity_chart(granularity(sweeps, metric)).to_html(
        full_html=False, include_plotlyjs=False, config=RESPONSIVE
    )
    title = as_html(" and ".join(sweep.name for sweep in sweeps))
    page = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body><h1>What clusters were worth: {title}</h1>"
        f"{body[0]}{charts}{''.join(body[1:])}</body></html>"
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
    table = _table(HEADER, as_rows(shown), marked=marked) + _left_out(len(summaries) - len(shown), "points")
    return (
        f'<h2>{as_html(sweep.name)}</h2><p class="answer">{as_html(first)}</p><p>{as_html(" ".join(rest))}</p>'
        f"{table}<ul>{lines}</ul>{early}"
    )


def _comparison(first: Sweep, second: Sweep, metric: str) -> str:
    rows = comparison_rows(first, second, metric)
    if not rows:
        return '<h2>Compared</h2><p class="note">The sweeps have no point in common.</p>'
    table = _table(("point", first.name, second.name, "difference"), rows[:MAX_ROWS])
    return f"<h2>Compared</h2>{table}{_left_out(len(rows[MAX_ROWS:]), 'points')}"


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
