"""Options of the k-means commands, made from the fields of `KMeansOptions` and their documentation."""

import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from clray.kmeans.options import KMeansOptions

FLAGS = {"num_shards": "--shards", "assign_method": "--assign"}
"""How settings are called here, where it is not `--` and their name with dashes."""
ENGLISH = ("seed", "init", "tolerance", "spherical", "balanced")
"""Names that are also words, which in a message need not mean the setting."""
Command = Callable[..., None]


def takes(*names: str) -> Callable[[Command], Command]:
    """Give a command, which has `**settings`, an option for each of these fields."""

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
        command.__signature__ = signature.replace(parameters=[*own, *map(_parameter, names)])  # type: ignore[attr-defined]
        command.__annotations__ |= {name: _annotation(name) for name in names}
        return command

    return decorate


def flags_of_settings() -> dict[str, str]:
    """The options by the names of the fields."""
    return {name: flag_of(name) for name in KMeansOptions.model_fields if name not in ENGLISH}


def flag_of(name: str) -> str:
    """The option of a field."""
    return FLAGS.get(name, "--" + name.replace("_", "-"))


def _parameter(name: str) -> inspect.Parameter:
    default = KMeansOptions.model_fields[name].default
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_annotation(name)
    )  # fmt: skip


def _annotation(name: str) -> Any:
    field = KMeansOptions.model_fields[name]
    is_size = name == "memory_per_shard"
    kind: Any = str | None if is_size else field.annotation
    text = " ".join((field.description or "").split())
    return Annotated[kind, typer.Option(flag_of(name), help=text, metavar="SIZE" if is_size else None)]
