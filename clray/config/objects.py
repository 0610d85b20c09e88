"""Functions and classes of the user's in a config from Python, in place of their names `module:name`."""

from collections.abc import Mapping
from typing import Any

from clray.config.keys import flatten, with_overrides
from clray.config.plain import shown
from clray.config.schema import Config
from clray.config.source import Source, read_config
from clray.errors import UserError
from clray.user_code import name_of


def read_with_objects(source: Source, overrides: Mapping[str, Any] | None = None) -> Config:
    """As `read_config`; a function or class stands for its name, and passing one allows it.

    Raises:
        UserError: also a function that has no name to import it by.
    """
    if not isinstance(overrides, Mapping | None):
        raise UserError(f"overrides: expected a dict of values by dotted key; got {shown(overrides)}")
    given = {**(flatten(dict(source)) if isinstance(source, Mapping) else {}), **(overrides or {})}
    named = {key: name_of(value, key) for key, value in given.items() if callable(value)}
    if not named:
        return read_config(source, overrides)
    if isinstance(source, Mapping):
        source = with_overrides(dict(source), named)
    return read_config(source, {**(overrides or {}), **named, "allow_user_modules": True})


def require_modules(config: Config) -> None:
    """Raise UserError where other processes would have to import what the main script or a notebook defines."""
    for key, value in flatten(config.model_dump(mode="json")).items():
        if isinstance(value, str) and value.startswith("__main__:"):
            raise UserError(
                f"{key}={value}: other processes cannot import what a script or notebook defines; move it into a module"
            )
