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
