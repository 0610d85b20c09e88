"""clray config: what the keys of a config mean; parsing and printing only."""

import sys
from dataclasses import asdict
from typing import Annotated

import typer

from clray.cli.options import AsJson
from clray.cli.terminal import print_json, print_line, print_wrapped
from clray.config.explain import Entry, as_markdown, explain, overview
from clray.config.json_schema import as_text


def config(
    key: Annotated[
        str | None, typer.Argument(metavar="KEY", help="A section, such as train, or a key: train.learning_rate.")
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print every key as a page of Markdown.")] = False,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema that editors check by.")] = False,
    as_json: AsJson = False,
) -> None:
    """Explain the keys of a config: their values, defaults and meaning."""
    if markdown or schema:
        sys.stdout.write(as_markdown() if markdown else as_text())
    elif key is None:
        if as_json:
            print_json(overview())
            return
        for name, text in overview().items():
            print_wrapped(text, f"{name:<18}  ")
        print_line("\nExplain one: clray config train, or clray config train.learning_rate")
    else:
        found = explain(key)
        if as_json:
            print_json(asdict(found))
            return
        if found.text:
            print_wrapped(f"{found.text}\n", f"{found.name}: ")
        for entry in found.entries:
            _print_entry(entry)


def _print_entry(entry: Entry) -> None:
    print_line(entry.key)
    print_wrapped(entry.values.replace("`", ""), "  values   ")
    if entry.default:
        print_wrapped(entry.default, "  default  ")
    print_wrapped(f"{entry.text}\n", "  ")
