"""YAML in and out, for texts that anybody may have written: no objects, no duplicate keys, and nothing that grows.

Words and numbers are told apart as in YAML 1.2: `1e-3` is a number; `007`, `12:30` and `2026-01-31` are text.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from stat import S_ISREG
from typing import Any

import yaml

from clray.errors import UserError

LARGEST_BYTES = 2**18
DEEPEST = 50
MOST_NODES = 20_000
"""Two to three seconds of PyYAML."""
LARGEST_MAPPING = 100_000
_STR, _INT, _FLOAT, _MERGE = (f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "merge"))
_DECIMAL = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$")
_REAL = re.compile(
    r"^[-+]?(?:[0-9][0-9_]*\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+"
    r"|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)
_KEPT = tuple(f"tag:yaml.org,2002:{name}" for name in ("bool", "null", "merge"))


class _Loader(yaml.SafeLoader):
    """SafeLoader with the limits of this module."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as the base class declares it)
        first: [each for each in rules if each[0] in _KEPT]
        for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth, self.count = 0, 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # the stubs give it no types
        if self.depth >= DEEPEST:
            raise _problem(f"nested more than {DEEPEST} deep", event)
        if getattr(event, "tag", None) not in (None, "!", _STR) and not self.check_event(yaml.AliasEvent):
            raise _problem(f"the tag {event.tag} is not allowed", event)
        if self.count >= MOST_NODES:
            raise _problem(f"more than {MOST_NODES} values", event)
        self.depth, self.count = self.depth + 1, self.count + 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag not in (_STR, _MERGE):
                raise _problem("a key must be text; write it in quotes", key)
            if key.value in lines:
                raise _problem(f"the key '{key.value}' stands twice, first in line {lines[key.value]}", key)
            lines[key.value] = key.start_mark.line + 1
        return node

    def flatten_mapping(self, node: Any) -> None:
        super().flatten_mapping(node)
        if len(node.value) > LARGEST_MAPPING:
            raise _problem(f"a mapping of more than {LARGEST_MAPPING} keys", node)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        return super().construct_mapping(node, deep)


# Four times as fast where PyYAML has its C library; a sweep writes a config for each of its trials.
_FastDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class _Dumper(_FastDumper):  # type: ignore[misc]  # a class chosen at import
    """Puts in quotes what this or another reader of YAML would take for a number."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


for _tag, _form, _first in ((_INT, _DECIMAL, "-+0123456789"), (_FLOAT, _REAL, "-+.0123456789")):
    _Loader.add_implicit_resolver(_tag, _form, list(_first))
    _Dumper.add_implicit_resolver(_tag, _form, list(_first))


def _problem(text: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=at.start_mark)


def parse_yaml(text: str, where: str) -> Any:
    """The text's value, of plain dicts, lists, texts, numbers, booleans and None.

    Raises:
        UserError: no YAML, or YAML that a config has no use for; names `where` and the line.
    """
    try:
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
        reason = " ".join(filter(None, (error.context, error.problem)))
        raise UserError(f"{where}{line}: not readable as YAML: {reason}") from None
    except yaml.reader.ReaderError as error:
        raise UserError(f"{where}: not readable as YAML: {error.reason} at character {error.position}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a number of thousands of digits
        raise UserError(f"{where}: not readable as YAML: {error}") from None


def read_yaml(path: Path) -> Any:
    """The value of a YAML file.

    Raises:
        UserError: no such file, one that cannot be read, is no text or too large, or as `parse_yaml`.
    """
    return parse_yaml(_read_text(path), str(path))


def dump(tree: Any) -> str:
    """A plain tree as YAML that `parse_yaml` reads back."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def _read_text(path: Path) -> str:
    try:
        mode = path.stat().st_mode
        if not S_ISREG(mode):
            raise UserError(f"{path}: {'a folder' if path.is_dir() else 'no regular file'}; expected a YAML file")
        with path.open("rb") as file:
            content = file.read(LARGEST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such config file.{_beside(path)}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(path)!r}: cannot be read: {reason}") from None
    if len(content) > LARGEST_BYTES:
        raise UserError(f"{path}: more than {LARGEST_BYTES} bytes; that is no config")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not readable as YAML: no text in UTF-8 (byte {error.start})") from None


def _beside(path: Path) -> str:
    found = sorted(str(name) for name in path.parent.glob("*.yaml"))[:10] if path.parent.is_dir() else []
    return f" Configs there: {', '.join(found)}." if found else ""
