"""What a config may hold, whoever wrote it: texts, numbers, booleans, None, and lists and dicts of these."""

import os
from collections.abc import Mapping
from typing import Any

from clray.errors import UserError

DEEPEST = 50
MOST_VALUES = 100_000


def plain_tree(tree: Any, where: str) -> Any:
    """A copy of the tree in plain types.

    Tuples become lists, paths texts, and scalars of numpy or torch Python's numbers.

    Raises:
        UserError: another type, a key that is no text, nesting deeper than 50 (or without end), or more than 100,000
            values, counted as often as they are repeated by reference.
    """
    count = 0

    def copy(value: Any, key: str, depth: int) -> Any:
        nonlocal count
        count += 1
        if depth > DEEPEST:
            raise UserError(f"{where}: {key[:80]}... is nested more than {DEEPEST} deep")
        if count > MOST_VALUES:
            raise UserError(f"{where}: more than {MOST_VALUES} values, repetitions included; at {key[:80]}")
        if value is None or type(value) in (bool, int, float, str):
            return value
        if isinstance(value, Mapping):
            for name in value:
                if not isinstance(name, str):
                    raise UserError(f"{where}: {key or 'config'}: a key must be text; got {shown(name)}")
            return {str(name): copy(each, f"{key}.{name}".lstrip("."), depth + 1) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [copy(each, key, depth + 1) for each in value]
        if isinstance(value, os.PathLike):
            return os.fsdecode(value)
        if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
            return value.item()
        for kind in (int, float, str):
            if isinstance(value, kind):
                return kind(value)
        raise UserError(f"{where}: {key or 'config'} must be text, a number, a list or a mapping; got {shown(value)}")

    return copy(tree, "", 0)


def shown(value: Any) -> str:
    """A value for a message: in one line, of bounded length, and never an address in memory."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a number of about {value.bit_length() * 3 // 10} digits"
    if not isinstance(value, str | int | float | list | tuple | dict):
        return f"a {type(value).__name__}"
    if isinstance(value, list | tuple) and len(value) > 20:
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"a mapping of {len(value)} keys"
    if isinstance(value, list | tuple):
        return f"[{', '.join('[...]' if isinstance(each, list | tuple) and each else shown(each) for each in value)}]"
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:80]}... ({len(text)} characters)"
