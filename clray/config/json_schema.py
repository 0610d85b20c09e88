"""The config as a JSON schema: what editors check and complete by, and what keys are explained from.

Holds what can be said of one value at a time; what cannot go together is left to `rules` and the sections' own checks.
"""

import json
from typing import Any

from clray.config.once import shared_because
from clray.config.schema import SECTIONS, Config
from clray.config.source import EXTENDS

Schema = dict[str, Any]
EXTENDS_TEXT = (
    "Path of another config, relative to this file, whose values this one takes over and replaces: sections key by "
    "key, any other value whole."
)
LINE_LENGTH = 120
_LIST: Schema = {"type": "array", "minItems": 1}
_BOUNDS: Schema = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}
DOMAINS: dict[str, Schema] = {
    "grid_search": _LIST,
    "choice": _LIST,
    "uniform": _BOUNDS,
    "loguniform": _BOUNDS,
    "quniform": {**_BOUNDS, "minItems": 3, "maxItems": 3},
    "randint": _BOUNDS,
    "lograndint": _BOUNDS,
}
"""What a key of a search space may hold in place of a value."""


def fields() -> dict[str, Schema]:
    """The schema of each value of a config file by its dotted key, in the order of the sections."""
    whole = Config.model_json_schema()
    found: dict[str, Schema] = {EXTENDS: {"type": "string", "description": EXTENDS_TEXT}}
    for name, field in whole["properties"].items():
        if name in SECTIONS:
            inside = whole["$defs"][field["$ref"].rpartition("/")[2]]["properties"]
            found |= {f"{name}.{key}": _plain(value) for key, value in inside.items()}
        else:
            found[name] = _plain(field)
    return found


def section_text(name: str) -> str:
    """The docstring of a section."""
    return _in_one_line(Config.model_fields[name].annotation.__doc__ or "")


def json_schema() -> Schema:
    """The schema of a config file, in draft 7 of JSON Schema."""
    known = fields()
    properties: Schema = {}
    for key, field in known.items():
        section, _, name = key.rpartition(".")
        if section:
            properties.setdefault(section, _section(section))["properties"][name] = field
        else:
            properties[key] = field
    space = {"anyOf": [{"$ref": "#/definitions/space"}, {"type": "array", "items": {"$ref": "#/definitions/space"}},
                       {"type": "null"}]}  # fmt: skip
    properties["search_space"] = {"description": known["search_space"]["description"], **space}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "clray config",
        "description": _in_one_line(Config.__doc__ or ""),
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "definitions": {"space": _space([key for key in known if key != EXTENDS]), "domain": _domain()},
    }


def as_text() -> str:
    """The schema as the file `tune_configs/schema.json`: what fits on a line stands on one."""
    return _written(json_schema()) + "\n"


def _written(tree: Any, indent: str = "") -> str:
    text = json.dumps(tree, ensure_ascii=False)
    if not isinstance(tree, dict) or len(indent) + len(text) <= LINE_LENGTH:
        return text
    deeper = indent + "  "
    items = (f"{deeper}{json.dumps(key)}: {_written(value, deeper)}" for key, value in tree.items())
    return "{\n" + ",\n".join(items) + f"\n{indent}}}"


def _section(name: str) -> Schema:
    """A section, which may stand empty."""
    return {
        "description": section_text(name),
        "type": ["object", "null"],
        "properties": {},
        "additionalProperties": False,
    }


def _space(keys: list[str]) -> Schema:
    """One map of a search space: a value or a domain for each key in which trials may differ."""
    values = {
        key: {"anyOf": [{"$ref": f"#/properties/{key.replace('.', '/properties/')}"}, {"$ref": "#/definitions/domain"}]}
        for key in keys
        if shared_because(key) is None
    }
    return {"type": "object", "properties": values, "additionalProperties": False}


def _domain() -> Schema:
    return {
        "type": "object", "properties": DOMAINS, "additionalProperties": False, "minProperties": 1, "maxProperties": 1,
    }  # fmt: skip


def _plain(field: Schema) -> Schema:
    """A field's schema without pydantic's titles."""
    kept = {key: value for key, value in field.items() if key != "title"}
    return kept | {"description": _in_one_line(field.get("description", ""))}


def _in_one_line(text: str) -> str:
    return " ".join(text.split())
