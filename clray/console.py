"""A terminal that shows data as they are: no markup, no emoji, no escape sequences, no passwords."""

from typing import Any

from rich.console import Console
from rich.text import Text

from clray.redaction import hide_credentials, show_controls


class PlainConsole(Console):
    """A console of rich for texts that hold data, such as names of files and classes.

    Rich reads `[/b]` as markup and `:bug:` as a picture, and passes escape sequences on. Here a style is said with
    `style=` or as a `Text`, whose own text `as_shown` has been through where it holds data.
    """

    def __init__(self, *, stderr: bool = False, **options: Any) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(as_shown(text), **options)


def as_shown(text: str) -> str:
    """The text as a terminal may show it; see `hide_credentials` and `show_controls`."""
    return show_controls(hide_credentials(text))
