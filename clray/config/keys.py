"""Dotted keys, overrides, nearest-key hints, and YAML in and out.

Imports neither torch nor Ray nor MLflow, so that a refused config answers at once.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from clray.config.schema import Config
from clray.errors import UserError
from clray.redaction import hide_in_tree


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
    if key not in keys:
        raise UserError(f"{where}: unknown key '{key}'.{_nearest(key, keys)}")


def _nearest(key: str, keys: list[str]) -> str:
    matches = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    if not matches:
        leaf = key.rsplit(".", 1)[-1]
        matches = [name for name in keys if difflib.SequenceMatcher(None, name.rsplit(".", 1)[-1], leaf).ratio() > 0.7]
    return f" Did you mean '{matches[0]}'?" if matches else f" Valid sections: {', '.join(Config.model_fields)}."


def load_tree(path: Path) -> dict[str, Any]:
    """The YAML file as a plain tree, read with `safe_load`."""
    if not path.is_file():
        beside = sorted(str(name) for name in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f" Configs there: {', '.join(beside)}." if beside else ""
        raise UserError(f"{path}: no such config file.{hint}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping of sections at the top; got a {type(tree).__name__}")
    return tree


def parse_assignment(text: str) -> tuple[str, Any]:
    """`clusters.num_clusters=50` as (key, value), the value read as YAML."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UserError(f"--set {text}: expected KEY=VALUE, for example --set clusters.num_clusters=50")
    check_key(key, "--set")
    try:
        return key, _as_number(yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise UserError(f"--set {text}: the value is not readable as YAML") from error


def _as_number(value: Any) -> Any:
    """YAML 1.1 reads `1e-3` as text; users mean the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def with_overrides(tree: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """A copy of the tree with dotted keys set; the tree itself is left as it was."""
    result = dict(tree)
    for key, value in overrides.items():
        section, _, rest = key.partition(".")
        if rest:
            child = result.get(section)
            result[section] = with_overrides(child if isinstance(child, dict) else {}, {rest: value})
        else:
            result[section] = value
    return result


def parse_config(tree: dict[str, Any], where: str = "config") -> Config:
    """Validate a plain tree.

    Raises:
        UserError: one line per problem, each naming key, given value, expected range, and for an unknown key the
            nearest valid one.
    """
    try:
        return Config.model_validate(_numbers(tree))
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors()]
        raise UserError("\n".join(f"{where}: {problem}" for problem in problems)) from None


def _numbers(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _numbers(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_numbers(value) for value in tree]
    if isinstance(tree, str) and "e" in tree.lower():
        return _as_number(tree)
    return tree


def _describe(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'.{_nearest(key, [*known_keys(), *Config.model_fields])}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message if "." in message.split(" ", 1)[0] or not key else f"{key}.{message}"
    message = message.replace("Input should be", "must be").replace("Input must be", "must be")
    return f"{key} {message}; got {problem['input']!r}"


def read_config(source: str | Path | Mapping[str, Any] | Config, overrides: Mapping[str, Any] | None = None) -> Config:
    """One validated experiment from the path of a YAML file, a tree of sections or a Config, with dotted keys replaced.

    Raises:
        UserError: as `parse_config`; an unknown key in `overrides`.
    """
    for key in overrides or {}:
        check_key(key, "overrides")
    if isinstance(source, Config):
        return override(source, dict(overrides or {}))
    if isinstance(source, Mapping):
        return parse_config(with_overrides(dict(source), dict(overrides or {})))
    if not isinstance(source, str | Path):
        raise UserError(f"config: expected a path, a dict or a Config; got a {type(source).__name__}")
    return parse_config(with_overrides(load_tree(Path(source)), dict(overrides or {})), str(source))


def load_config(path: Path, assignments: list[str] | None = None) -> Config:
    """Read, override and validate one experiment; raises UserError before anything is started."""
    overrides = dict(parse_assignment(text) for text in assignments or [])
    return parse_config(with_overrides(load_tree(path), overrides), str(path))


def stored_config(tree: Any, overrides: dict[str, Any], source: str | Path) -> Config:
    """The config that a file of results holds, such as a checkpoint, with dotted keys replaced.

    Who made the file chose its modules, and whoever loads it runs them: so it cannot allow `allow_user_modules` to
    itself. Only the overrides can.

    Raises:
        UserError: it asks for code that the overrides do not allow, or is no config of this version; names the file.
    """
    if not isinstance(tree, dict):
        raise UserError(f"{source}: holds no config of clray")
    allowing = "allow_user_modules=true"
    try:
        return parse_config(with_overrides({**tree, "allow_user_modules": False}, overrides), str(source))
    except UserError as error:
        hint = f"--set {allowing}, where you trust who made the file"
        raise UserError(str(error).replace(allowing, hint)) from None


def override(config: Config, overrides: dict[str, Any], where: str = "config") -> Config:
    """A validated copy of the config with dotted keys replaced."""
    return parse_config(with_overrides(config.model_dump(mode="json"), overrides), where)


def dump_yaml(config: Config) -> str:
    """The resolved config, with every default written out, as YAML that `clray train` reads back; passwords hidden."""
    return yaml.safe_dump(hide_in_tree(config.model_dump(mode="json")), sort_keys=False)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one dict over dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
