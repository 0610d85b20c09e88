"""The library speaks of its arguments and of config keys; here they are options, and its messages are told so."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from clray.config import known_keys
from clray.errors import UserError

ARGUMENTS = {
    "resume": "--resume",
    "name": "--name",
    "output": "--output",
    "tracking_uri": "--tracking-uri",
}
"""The arguments of the library that several commands take, and their options."""


def with_flags(message: str, flags: Mapping[str, str] = ARGUMENTS) -> str:
    """The message in a command's own words.

    An argument is meant where it stands before a colon at the start of a line, or in backticks; one whose name has an
    underscore, wherever it stands alone. `with KEY=VALUE` is a setting of the config, which `--set` makes.
    """
    for name, flag in flags.items():
        message = re.sub(rf"^{name}(?=:)|`{name}(=True)?`", flag, message, flags=re.MULTILINE)
        if "_" in name:
            message = re.sub(rf"(?<![\w/.-]){name}(?![\w/.-])", flag, message)
    return _settings().sub(r"\1 --set \2", message)


@contextmanager
def flags_named(flags: Mapping[str, str]) -> Iterator[None]:
    """A UserError of the block names the options of one command, beside those of all."""
    try:
        yield
    except UserError as error:
        raise UserError(with_flags(str(error), flags)) from error


@cache
def _settings() -> re.Pattern[str]:
    return re.compile(rf"\b(with|by) ((?:{'|'.join(map(re.escape, known_keys()))})=)")
