"""The README and docs/: links lead somewhere, commands and options exist, and the first page stays short."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from clray.cli.app import app
from clray.config import parse_assignment
from tests.conftest import REPOSITORY

PAGES = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
MAX_README_WORDS = 1100
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
FILE = re.compile(r"`((?:clray|scripts|tests|tune_configs)/[\w/]+\.\w+)`")
BLOCK = re.compile(r"```bash\n(.*?)```", re.DOTALL)


def commands_in(page: Path) -> list[str]:
    blocks = (block.replace("\\\n", " ") for block in BLOCK.findall(page.read_text(encoding="utf-8")))
    lines = [line for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("clray ")]


def test_the_first_page_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").split()) <= MAX_README_WORDS


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_link_leads_to_a_file(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_a_file_that_a_page_names_is_there(page: Path) -> None:
    for name in FILE.findall(page.read_text(encoding="utf-8")):
        assert (REPOSITORY / name).exists(), name


@pytest.mark.parametrize(
    "line", sorted({line for page in PAGES for line in commands_in(page)}), ids=lambda line: line.split("#")[0].strip()
)
def test_a_command_on_a_page_has_only_options_that_exist(line: str) -> None:
    command = typer.main.get_command(app)
    words = shlex.split(line, comments=True)[1:]
    while hasattr(command, "commands"):
        name = words.pop(0)
        assert name in command.commands, name
        command = command.commands[name]
    known = {option for parameter in command.params for option in parameter.opts}
    for word, following in zip(words, [*words[1:], ""][: len(words)], strict=True):
        if word.startswith("-"):
            assert word.split("=")[0] in known, word
        if word == "--set":
            parse_assignment(following)
