"""Addresses without the passwords in them, for everything that is written down or printed."""

import re
from typing import Any

CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
SECRET_OPTIONS = re.compile(r"(?i)([?&][^=&\s]*(?:key|secret|token|password|signature)[^=&\s]*=)[^&\s]+")
HIDDEN = "***"


def hide_credentials(text: str) -> str:
    """`s3://key:secret@bucket?token=x` as `s3://***@bucket?token=***`."""
    return SECRET_OPTIONS.sub(rf"\1{HIDDEN}", CREDENTIALS.sub(f"{HIDDEN}@", text))


def hide_in_tree(tree: Any) -> Any:
    """A copy of a plain tree with `hide_credentials` applied to every text in it."""
    if isinstance(tree, dict):
        return {key: hide_in_tree(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [hide_in_tree(value) for value in tree]
    return hide_credentials(tree) if isinstance(tree, str) else tree
