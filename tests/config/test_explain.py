"""Every key is explained, by `clray config` and by docs/config.md, from the text below its field."""

import re

import pytest
from typer.testing import CliRunner

from clray.cli.app import app
from clray.config.explain import as_markdown, explain, overview
from clray.config.json_schema import fields
from clray.config.keys import known_keys
from clray.config.schema import SECTIONS
from clray.errors import UserError
from tests.conftest import REPOSITORY


def test_every_key_has_a_description_that_ends_as_a_sentence() -> None:
    found = fields()
    assert set(found) == {*known_keys(), "extends"}
    assert [key for key, field in found.items() if not re.search(r"[.)]$", field["description"])] == []
    assert all(overview()[name] for name in SECTIONS)


def test_the_page_is_generated_from_the_sections() -> None:
    page = (REPOSITORY / "docs" / "config.md").read_text(encoding="utf-8")
    assert page == as_markdown(), "run scripts/config_reference.sh"


@pytest.mark.parametrize(
    ("key", "values", "default"),
    [
        ("objective.temperature", "number, above 0", "0.2"),
        ("augmentation.min_crop_scale", "number, above 0, at most 1, or list of numbers, above 0, at most 1", "0.4"),
        ("train.num_epochs", "whole number, at least 1", "10"),
        ("data.image_size", "whole number, at least 4, at most 16384, or null", "null"),
        ("train.optimizer", "one of `sgd`, `adamw`, `lars`", "adamw"),
        ("kmeans.warm_start", "true or false", "true"),
        ("clusters.granularities", "list of whole numbers, at least 0, or null", "null"),
        ("sweep.mutated", "list of text", '["objective.temperature", "train.learning_rate"]'),
        ("kmeans.node_labels", "mapping of names to text", "{}"),
    ],
)
def test_a_key_is_explained_with_its_values_and_default(key: str, values: str, default: str) -> None:
    (entry,) = explain(key).entries
    assert (entry.key, entry.values, entry.default) == (key, values, default)
    assert entry.text


def test_names_of_ones_own_are_told_beside_the_known_ones() -> None:
    for key, known in (("encoder.name", "`resnet18`"), ("clusters.source", "`kmeans`"), ("sweep.searcher", "`grid`")):
        (entry,) = explain(key).entries
        assert known in entry.values
        assert entry.values.endswith("or `module:name` of your own")


def test_the_last_part_of_a_key_is_enough() -> None:
    assert [entry.key for entry in explain("max_failures").entries] == ["train.max_failures", "sweep.max_failures"]


def test_a_section_is_explained_key_by_key() -> None:
    found = explain("head")
    assert [entry.key for entry in found.entries] == [
        "head.num_layers",
        "head.hidden_dim",
        "head.norm",
        "head.embedding_dim",
    ]
    assert found.text


@pytest.mark.parametrize(
    ("key", "meant"),
    [("objective.temprature", "objective.temperature"), ("trainn", "train"), ("temprature", "objective.temperature")],
)
def test_an_unknown_key_names_the_nearest(key: str, meant: str) -> None:
    with pytest.raises(UserError, match=f"unknown key '{key}'. Did you mean '{meant}'?"):
        explain(key)


@pytest.mark.parametrize("columns", ["5", "80", "300"])
def test_the_command_explains_in_any_terminal(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for words in ([], ["train"], ["sweep.searcher"]):
        done = CliRunner().invoke(app, ["config", *words], catch_exceptions=False)
        assert done.exit_code == 0
        assert "searcher" in done.output or "sweep" not in words
    assert "searcher" in done.output
