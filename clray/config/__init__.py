"""The experiment's config: its schema, what cannot go together, and keys by their dotted names."""

from clray.config.keys import (
    check_key,
    dump_yaml,
    flatten,
    known_keys,
    load_config,
    load_tree,
    override,
    parse_assignment,
    parse_config,
    stored_config,
    with_overrides,
)
from clray.config.schema import Config

__all__ = [
    "Config",
    "check_key",
    "dump_yaml",
    "flatten",
    "known_keys",
    "load_config",
    "load_tree",
    "override",
    "parse_assignment",
    "parse_config",
    "stored_config",
    "with_overrides",
]
