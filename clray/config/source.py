"""Configs from files: a YAML file, what it extends, and overrides."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from clray.config.keys import check_key, parse_assignment, with_overrides
from clray.config.parse import override, parse_config
from clray.config.plain import shown
from clray.config.schema import SECTIONS, Config
from clray.config.yaml_text import read_yaml
from clray.errors import UserError

EXTENDS = "extends"
"""Key of a config file that names another, whose values it takes over and replaces."""
LONGEST_CHAIN = 20
Source = str | os.PathLike[str] | Mapping[str, Any] | Config
"""A config: the path of a YAML file, a tree of sections, or a Config."""


def read_config(source: Source, overrides: Mapping[str, Any] | None = None) -> Config:
    """One validated experiment, with dotted keys replaced.

    Example:
        >>> read_config("tune_configs/quickstart.yaml", {"clusters.num_clusters": 50})

    Raises:
        UserError: as `load_tree` and `parse_config`; an unknown key in `overrides`.
    """
    overrides = dict(overrides or {})
    for key in overrides:
        check_key(str(key), "overrides")
    if isinstance(source, Config):
        return override(source, overrides)
    if isinstance(source, Mapping):
        tree = _extended(dict(source), Path("config"), ())
        return parse_config(with_overrides(tree, overrides))
    path = _as_path(source)
    return parse_config(with_overrides(load_tree(path), overrides), str(path))


def load_config(source: Source, assignments: list[str] | None = None) -> Config:
    """As `read_config`, with overrides as on the command line, such as `["clusters.num_clusters=50"]`."""
    return read_config(source, dict(map(parse_assignment, assignments or [])))


def load_tree(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The YAML file as a plain tree, together with what it extends.

    Raises:
        UserError: a file that is missing or no YAML, or extends itself.
    """
    return _load(_as_path(path), ())


def _as_path(source: object) -> Path:
    if isinstance(source, str | os.PathLike):
        return Path(source)
    raise UserError(f"config: expected a path, a dict or a Config; got {shown(source)}")


def _load(path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    tree = read_yaml(path)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping of sections at the top; got {shown(tree)}")
    return _extended(tree, path, chain)


def _extended(tree: dict[str, Any], path: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """The tree over the one that it extends; `chain` holds the files that led here."""
    if EXTENDS not in tree:
        return tree
    name = tree.pop(EXTENDS)
    if not isinstance(name, str):
        raise UserError(f"{path}: extends must be the path of a config; got {shown(name)}")
    base = path.parent / name
    if "\0" in name or not _is_utf8(name) or len(chain) > LONGEST_CHAIN:
        raise UserError(f"{path}: extends {shown(name)}: no path of a config, or over {LONGEST_CHAIN} others")
    chain = (*chain, Path(os.path.realpath(path)))
    if Path(os.path.realpath(base)) in chain:
        raise UserError(f"{path}: extends {name}, which leads back to itself: {' -> '.join(map(str, chain))}")
    try:
        return _merged(_load(base, chain), tree)
    except UserError as error:
        raise UserError(f"{path}: extends {name}: {error}") from None


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _merged(base: dict[str, Any], tree: dict[str, Any]) -> dict[str, Any]:
    """Sections are merged key by key; any other value, a search space too, replaces that of the base."""
    result = {**base, **tree}
    for section in SECTIONS:
        below, above = base.get(section), tree.get(section)
        if section in tree and above is None:
            result[section] = below
        if isinstance(below, dict) and isinstance(above, dict):
            result[section] = {**below, **above}
    return result
