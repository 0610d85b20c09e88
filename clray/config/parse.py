"""A plain tree to a validated config, with a line for each problem; and a config back to a tree."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import TypeAdapter, ValidationError

from clray.config.keys import known_keys, nearest, with_overrides
from clray.config.plain import plain_tree, shown
from clray.config.schema import Config
from clray.config.yaml_text import dump
from clray.errors import UserError
from clray.redaction import hide_in_tree

MOST_PROBLEMS = 20
EXPECTED = {
    "model_type": "must be a section of keys",
    "string_type": "must be text, in quotes where it looks like something else",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "dict_type": "must be a mapping",
    "int_from_float": "must be a whole number",
    "finite_number": "must be a finite number",
}
"""By pydantic's type of an error, where its own words are for programmers."""


def parse_config(tree: Mapping[str, Any], where: str = "config") -> Config:
    """Validate a tree of sections.

    Raises:
        UserError: one line per problem, each naming key, given value, expected range, and for an unknown key the
            nearest valid one.
    """
    try:
        return Config.model_validate(plain_tree(tree, where))
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors(include_url=False)[:MOST_PROBLEMS]]
        if error.error_count() > MOST_PROBLEMS:
            problems.append(f"and {error.error_count() - MOST_PROBLEMS} more problems")
        raise UserError("\n".join(f"{where}: {problem}" for problem in problems)) from None


def check_value(key: str, value: Any, where: str) -> None:
    """Raise UserError unless a key can have this value, whatever the others are."""
    model: Any = Config
    *sections, name = key.split(".")
    for section in sections:
        model = model.model_fields[section].annotation
    field = model.model_fields[name]
    kind: Any = Annotated[field.annotation, *field.metadata] if field.metadata else field.annotation
    try:
        TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        raise UserError(f"{where}: {_describe({**error.errors()[0], 'loc': (key,)})}") from None


def _describe(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key {key!r}.{nearest(key, [*known_keys(), *Config.model_fields])}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message if "." in message.split(" ", 1)[0] or not key else f"{key}.{message}"
    message = message.replace("Input should be", "must be").replace("Input must be", "must be")
    return f"{key} {EXPECTED.get(problem['type'], message)}; got {shown(problem['input'])}"


def override(config: Config, overrides: Mapping[str, Any], where: str = "config") -> Config:
    """A validated copy of the config with dotted keys replaced."""
    return parse_config(with_overrides(config.model_dump(mode="json"), overrides), where)


def stored_config(tree: Any, overrides: Mapping[str, Any], source: str | Path) -> Config:
    """The config that a file of results holds, such as a checkpoint, with dotted keys replaced.

    Who made the file chose its modules, and whoever loads it runs them: so it cannot allow `allow_user_modules` to
    itself. Only the overrides can.

    Raises:
        UserError: it asks for code that the overrides do not allow, or is no config of this version; names the file.
    """
    if not isinstance(tree, dict):
        raise UserError(f"{source}: holds no clray config")
    allowing = "allow_user_modules=true"
    try:
        return parse_config(with_overrides({**tree, "allow_user_modules": False}, overrides), str(source))
    except UserError as error:
        hint = f"{allowing}, where you trust who made the file"
        raise UserError(str(error).replace(allowing, hint)) from None


def dump_yaml(config: Config) -> str:
    """The resolved config, with every default written out, as YAML that `clray train` reads back; passwords hidden."""
    return dump(hide_in_tree(config.model_dump(mode="json")))
