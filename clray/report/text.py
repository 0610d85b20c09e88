"""Names from data as text that does nothing: no control characters, no markup, no formulas."""

from html import escape

from clray.redaction import show_controls

LONGEST = 60
"""Letters of a name in a chart."""


def visible(text: str) -> str:
    """The text on one line, with control and direction characters as escapes, such as `\\x1b` and `\\u202e`."""
    return show_controls(text).replace("\n", "\\n").replace("\t", "\\t")


def shortened(text: str, longest: int = LONGEST) -> str:
    """The text, visible, with the middle of a long one left out, so that its number or ending still tells."""
    text = visible(text)
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def as_html(text: str) -> str:
    """The text, visible, as HTML shows it as it stands."""
    return escape(visible(text))
