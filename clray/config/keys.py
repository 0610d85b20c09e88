"""Dotted keys: which there are, the nearest to a mistyped one, and values set by them."""

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from clray.config.plain import shown
from clray.config.schema import Config
from clray.config.yaml_text import parse_yaml
from clray.errors import UserError

RESETS = {"train.num_workers": "train.min_workers"}
"""A key that, set anew, takes another back to its default, unless that is set too."""


def known_keys(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the config that holds a value, such as `clusters.num_clusters`."""
    keys = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def check_key(key: str, where: str) -> None:
    """Raise UserError naming the nearest valid key unless `key` is a dotted key of the config."""
    keys = [name for name in known_keys() if name != "search_space"]
    inside = [name for name in keys if name.startswith(f"{key}.")]
    if inside:
        raise UserError(f"{where}: {key} is a section; set one of its keys, such as {inside[0]}")
    if key not in keys:
        raise UserError(f"{where}: unknown key {key!r}.{nearest(key, keys)}")


def nearest(key: str, keys: list[str]) -> str:
    """A hint at what was meant, to put behind a message."""
    key = key[:200]
    matches = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    if not matches:
        leaf = key.rsplit(".", 1)[-1]
        matches = [name for name in keys if difflib.SequenceMatcher(None, name.rsplit(".", 1)[-1], leaf).ratio() > 0.7]
    return f" Did you mean '{matches[0]}'?" if matches else f" Valid sections: {', '.join(Config.model_fields)}."


def parse_assignment(text: str, where: str = "setting") -> tuple[str, Any]:
    """`clusters.num_clusters=50` as (key, value), the value read as YAML, or as it stands where the key holds text.

    Args:
        where: what messages call it.
    """
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UserError(f"{where} {shown(text)}: expected KEY=VALUE, for example clusters.num_clusters=50")
    check_key(key, where)
    parsed = parse_yaml(value, f"{where} {key}")
    return key, value if _holds_text(key) and not isinstance(parsed, str | None | list | dict) else parsed


def _holds_text(key: str) -> bool:
    model: Any = Config
    *sections, name = key.split(".")
    for section in sections:
        model = model.model_fields[section].annotation
    return "str" in str(model.model_fields[name].annotation).replace("tuple[str", "").replace("dict[str", "")


def with_overrides(tree: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of the tree with dotted keys set, those in `RESETS` with what they reset; the tree is left as it was.

    Raises:
        UserError: the tree has a value where a key's section belongs.
    """
    result, resets = dict(tree), {RESETS[key]: None for key in overrides if key in RESETS}
    for key, value in {**resets, **overrides}.items():
        section, _, rest = key.partition(".")
        if rest:
            child = result.get(section)
            if child is not None and not isinstance(child, Mapping):
                raise UserError(f"{section} must be a section of keys; got {shown(child)}")
            result[section] = with_overrides(child or {}, {rest: value})
        else:
            result[section] = value
    return result


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one dict over dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
