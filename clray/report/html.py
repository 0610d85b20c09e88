"""One self-contained HTML file: its own styles and scripts and no others, and data that cannot become markup."""

import base64
import hashlib
import json
import math
from importlib.resources import files
from pathlib import Path
from typing import Any

from clray.report.text import as_html

UNSAFE_IN_SCRIPT = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def document(title: str, body: str, *, styles: tuple[str, ...], scripts: tuple[str, ...]) -> str:
    """A page; the browser runs no script and loads no style but these, and nothing from a network.

    Args:
        title: text.
        body: HTML.
        styles, scripts: names of files in `assets`.
    """
    style, script = ("\n".join(map(_asset, names)) for names in (styles, scripts))
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{as_html(title)}</title>'
        f"<style>{style}</style></head><body>{body}<script>{script}</script></body></html>"
    )


def json_block(name: str, tree: Any) -> str:
    """Data for a script, as an element with this id; numbers that are not finite become null."""
    text = json.dumps(_finite(tree), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for letter, escape in UNSAFE_IN_SCRIPT.items():
        text = text.replace(letter, escape)
    return f'<script type="application/json" id="{as_html(name)}">{text}</script>'


def binary_block(name: str, data: bytes) -> str:
    """Bytes for a script, in base64, as an element with this id."""
    return f'<script type="text/plain" id="{as_html(name)}">{base64.b64encode(data).decode()}</script>'


def write_whole(text: str, path: Path) -> Path:
    """Write a file in one piece: a reader finds the old one or the new one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    return partial.replace(path)


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _asset(name: str) -> str:
    return (files("clray.report") / "assets" / name).read_text(encoding="utf-8").strip()


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"
