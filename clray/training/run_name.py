"""What a run or sweep may be called: one rule for the name of its folder, its MLflow run and its place in a storage."""

import re

from clray.errors import UserError

MAX_LENGTH = 100
ALPHABET = r"[A-Za-z0-9_][A-Za-z0-9 ._=+-]*"
TAKEN = ("mlflow.db", "mlartifacts", "clray.log", "latest")
"""What clray itself keeps in an output folder, and the word for the newest sweep."""


def check_run_name(name: str, where: str = "name") -> str:
    """The name, as it is.

    Raises:
        UserError: a name that could leave the output folder, or that MLflow, a shell or a storage reads as another.
    """
    if name in TAKEN:
        raise UserError(f"{where}: {name!r} is reserved in an output folder; choose another name")
    if len(name) > MAX_LENGTH or not re.fullmatch(ALPHABET, name) or name.endswith((" ", ".")):
        raise UserError(
            f"{where}: a name has 1 to {MAX_LENGTH} letters (a-z), digits or characters of '._-+= ', begins with a "
            f"letter, digit or '_' and does not end with a dot or space; got {_shortened(name)}"
        )
    return name


def as_run_name(text: str) -> str:
    """A name made of any text, such as that of a config file."""
    kept = re.sub(r"[^A-Za-z0-9._=+-]+", "-", text)[: MAX_LENGTH - 20].lstrip("-.=+").rstrip("-.")
    return kept or "run"


def _shortened(name: str) -> str:
    return repr(name) if len(name) <= MAX_LENGTH else f"{name[:20]!r}... of {len(name)} characters"
