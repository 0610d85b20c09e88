"""The library speaks of arguments and config keys; the commands name the options for them."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from clray.cli.flags import flags_named, with_flags
from clray.errors import UserError
from tests.conftest import REPOSITORY

OF_OTHER_PROGRAMS = {
    "ray start": {"--head", "--labels", "--dashboard-host", "--object-store-memory"},
    "ray job submit": {"--entrypoint-num-gpus"},
    "mlflow": {"--experiment-id", "--run-id"},
}
"""Options that the library may name, by the program whose they are."""
WORDS_OF_A_COMMAND = {"--backend-store-uri"}
"""Of a command that the library puts together word by word: mlflow ui."""
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")


def texts_in(path: Path) -> Iterator[tuple[int, str]]:
    """The texts of a file, those of an f-string as one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    joined = [node for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    inside = {id(part) for node in joined for part in node.values}
    for node in joined:
        yield node.lineno, "".join(str(part.value) for part in node.values if isinstance(part, ast.Constant))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            yield node.lineno, node.value


def test_the_library_names_no_option_of_a_command() -> None:
    found = []
    for path in sorted((REPOSITORY / "clray").rglob("*.py")):
        if path.is_relative_to(REPOSITORY / "clray" / "cli"):
            continue
        for line, text in texts_in(path):
            allowed = {flag for program, flags in OF_OTHER_PROGRAMS.items() if program in text for flag in flags}
            flags = set(FLAG.findall(text)) - allowed - WORDS_OF_A_COMMAND
            found += [f"{path.relative_to(REPOSITORY)}:{line}: {flag}" for flag in flags]
    assert found == []


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("resume: /x holds no run", "--resume: /x holds no run"),
        ("resume it with `resume`, or choose another `name`", "resume it with --resume, or choose another --name"),
        ("give `resume=True`", "give --resume"),
        ("name: 'x' is reserved\noutput: y", "--name: 'x' is reserved\n--output: y"),
        ("tracking_uri must be", "--tracking-uri must be"),
        ("leave them out with data.on_bad_image=skip", "leave them out with --set data.on_bad_image=skip"),
        ("allow it with allow_user_modules=true, or", "allow it with --set allow_user_modules=true, or"),
        ("the name: output of a resumed run in /name: x", "the name: output of a resumed run in /name: x"),
        ("kmeans.tracking_uri, with x=3", "kmeans.tracking_uri, with x=3"),
    ],
)
def test_a_message_is_told_in_a_commands_words(message: str, told: str) -> None:
    assert with_flags(message) == told


def test_a_command_has_words_of_its_own() -> None:
    with (
        pytest.raises(UserError, match=r"^--top-k: must be 3; see --levels and kmeans\.num_levels$"),
        flags_named({"counts": "--top-k", "num_levels": "--levels"}),
    ):
        raise UserError("counts: must be 3; see num_levels and kmeans.num_levels")
