"""A sweep's table and correlations as Markdown."""

from clray.report.correlation import correlations, describe
from clray.report.summary import ACCURACIES, HEADER, PointSummary, as_rows


def as_markdown(summaries: list[PointSummary], metric: str = ACCURACIES[0]) -> str:
    """The table, with the correlations below."""
    lines = ["| " + " | ".join(HEADER) + " |", "| --- |" + " ---: |" * (len(HEADER) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in as_rows(summaries)]
    return "\n".join([*lines, "", *(f"- {describe(each)}" for each in correlations(summaries, metric))]) + "\n"
