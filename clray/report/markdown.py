"""A sweep as Markdown that renders, and as CSV."""

import csv
import io

from clray.report.answer import describe_answer
from clray.report.correlation import correlations, describe
from clray.report.results import Sweep
from clray.report.summary import ACCURACIES, as_rows, columns_of, header_of, summarize
from clray.report.text import visible

MARKUP = r"\`*_{}[]<>#|~$&"


def as_markdown(sweep: Sweep, metric: str = ACCURACIES[0]) -> str:
    """The answer, the table, and the correlations."""
    summaries = summarize(sweep.trials, metric)
    header = header_of(summaries)
    rows = [header, *as_rows(summaries)]
    table = ["| " + " | ".join(escape(cell) for cell in row) + " |" for row in rows]
    table.insert(1, "| --- | --- |" + " ---: |" * (len(header) - 2))
    answer = " ".join(escape(sentence) for sentence in describe_answer(sweep, metric))
    found = [f"- {escape(describe(each))}" for each in correlations(summaries, metric)]
    return "\n".join([answer, "", *table, "", *found]).rstrip() + "\n"


def as_csv(sweep: Sweep, metric: str = ACCURACIES[0]) -> str:
    """A row for each point: name, role, repeats, and mean and sample deviation of each metric, unrounded."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    summaries = summarize(sweep.trials, metric)
    names = [name for _, name, *_ in columns_of(summaries)]
    writer.writerow(["point", "role", "repeats", "num_clusters", *names, *(f"{name} deviation" for name in names)])
    for each in summaries:
        values = [each.means.get(name, "") for name in names] + [each.spreads.get(name, "") for name in names]
        writer.writerow([each.point, each.role, each.num_repeats, each.num_clusters, *values])
    return text.getvalue()


def escape(text: str) -> str:
    """The text as Markdown shows it as it stands, in a table too."""
    return "".join(f"\\{letter}" if letter in MARKUP else letter for letter in visible(text))
