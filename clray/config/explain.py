"""What each key of a config means: its values, its default and its documentation; and all of them as one page."""

import json
from dataclasses import dataclass
from typing import Any

from clray.config.json_schema import Schema, fields, section_text
from clray.config.keys import nearest
from clray.config.schema import SECTIONS
from clray.config.sections.values import LARGEST, LARGEST_SEED
from clray.errors import UserError

WORDS = {"string": "text", "boolean": "true or false", "null": "null", "integer": "whole number", "number": "number"}
UNBOUNDED = (LARGEST, LARGEST_SEED)
PAGE_HEAD = """# Config

Every key of a config, as `clray config` explains them. `scripts/config_reference.sh` generates this page.

A config is a YAML file of the sections below. A key that is left out has its default. Commands replace values by
settings `SECTION.KEY=VALUE`, and Python by a dict of such keys.

The first line of the configs in `tune_configs/` names [`schema.json`](../tune_configs/schema.json). With it, an editor
that has a YAML language server completes and checks keys.
"""


@dataclass(frozen=True)
class Entry:
    """One key: the values it takes, in words, and its default, as YAML; empty where it has none."""

    key: str
    values: str
    default: str
    text: str


@dataclass(frozen=True)
class Explanation:
    """What is known of a section, or of a single key; `text` is the section's own."""

    name: str
    text: str
    entries: tuple[Entry, ...]


def overview() -> dict[str, str]:
    """The sections and the keys outside of them, with a line on each."""
    outside = {key: field["description"].split(". ")[0] for key, field in fields().items() if "." not in key}
    return {**outside, **{name: section_text(name) for name in SECTIONS}}


def explain(key: str) -> Explanation:
    """A section, a dotted key, or every key whose last part is this.

    Raises:
        UserError: there is none; names the nearest.
    """
    known = _entries()
    if key in SECTIONS:
        inside = tuple(entry for name, entry in known.items() if name.startswith(f"{key}."))
        return Explanation(key, section_text(key), inside)
    found = tuple(entry for name, entry in known.items() if key in (name, name.rpartition(".")[2]))
    if not found:
        names = [name for name in (*SECTIONS, *known) if "." in name or "." not in key]
        raise UserError(f"unknown key {key[:200]!r}.{nearest(key, names)}")
    return Explanation(key, "", found)


def as_markdown() -> str:
    """The page `docs/config.md`."""
    known = _entries().values()
    outside = [entry for entry in known if "." not in entry.key]
    parts = [PAGE_HEAD, "## Outside of the sections\n", _table(outside)]
    for name in SECTIONS:
        inside = [entry for entry in known if entry.key.startswith(f"{name}.")]
        parts += [f"## `{name}`\n", f"{section_text(name)}\n", _table(inside)]
    return "\n".join(parts)


def _entries() -> dict[str, Entry]:
    return {key: Entry(key, describe(field), _default(field), field["description"]) for key, field in fields().items()}


def _default(field: Schema) -> str:
    if "default" not in field:
        return ""
    default = field["default"]
    return default if isinstance(default, str) else json.dumps(default)


def describe(field: Schema) -> str:
    """The values of a field in words, such as `whole number, at least 2, or null`."""
    if "anyOf" in field:
        return ", or ".join(describe(each) for each in field["anyOf"])
    if "enum" in field:
        return "one of " + ", ".join(f"`{each}`" for each in field["enum"])
    if "pattern" in field:
        return "`module:name` of your own"
    kind = field["type"]
    if kind == "array":
        return f"list of {_plural(field['items'])}"
    if kind == "object":
        return f"mapping of names to {_plural(field['additionalProperties'])}"
    return ", ".join([WORDS[kind], *_bounds(field)])


def _plural(items: Any) -> str:
    if items is True:
        return "values"
    if items.get("type") == "object":
        return "mappings"
    name, separator, bounds = describe(items).partition(", ")
    return f"{name if name == 'text' else name + 's'}{separator}{bounds}"


def _bounds(field: Schema) -> list[str]:
    """The limits of a number or of a text's length that say something."""
    found = []
    if "minLength" in field:
        found.append(f"of {field['minLength']} character or more")
    if "multipleOf" in field:
        found.append(f"a multiple of {field['multipleOf']:g}")
    for key, words in (
        ("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"), ("exclusiveMaximum", "below"),
    ):  # fmt: skip
        if key in field and field[key] not in UNBOUNDED:
            found.append(f"{words} {field[key]:g}")
    return found


def _table(entries: list[Entry]) -> str:
    rows = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for each in entries:
        default = f"`{each.default}`" if each.default else ""
        rows.append(f"| `{each.key.rpartition('.')[2]}` | {each.values} | {default} | {_cell(each.text)} |")
    return "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
