"""The experiment's config: its schema, what cannot go together, and keys by their dotted names."""

from clray.config.keys import check_key, flatten, known_keys, parse_assignment, with_overrides
from clray.config.parse import check_value, dump_yaml, override, parse_config, stored_config
from clray.config.schema import Config
from clray.config.source import Source, load_config, load_tree, read_config

__all__ = [
    "Config",
    "Source",
    "check_key",
    "check_value",
    "dump_yaml",
    "flatten",
    "known_keys",
    "load_config",
    "load_tree",
    "override",
    "parse_assignment",
    "parse_config",
    "read_config",
    "stored_config",
    "with_overrides",
]
