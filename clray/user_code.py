"""The user's own code, named as `module:name` in a config; the config allows it by `allow_user_modules`."""

import importlib
import sys
from pathlib import Path
from typing import Any

from clray.errors import UserError


def import_named(place: str, key: str) -> Any:
    """The object that `module:name` names; modules in the current folder are found too.

    Args:
        place: such as `my_package.encoders:build`.
        key: of the config, for the message.

    Raises:
        UserError: the module or the name in it does not exist, or the module cannot be imported.
    """
    module, _, name = place.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever the user's module raises while it is imported
        raise UserError(
            f"{key}={place}: cannot be imported ({type(error).__name__}: {error}); the module must be importable on "
            "every node"
        ) from error


def name_of(value: Any, key: str) -> str:
    """`module:name` of a function or class, under which other processes import it too.

    Raises:
        UserError: it has no such name, as a lambda or a function within a function.
    """
    module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    place = f"{module}:{name}"
    if not callable(value) or module is None or name is None or not _is_at(value, module, name):
        shown = name or type(value).__name__
        raise UserError(
            f"{key}: expected a function or class that can be imported by its name; got {shown}. Define it at the "
            "top of a module"
        )
    return place


def _is_at(value: Any, module: str, name: str) -> bool:
    return getattr(sys.modules.get(module), name, None) is value
