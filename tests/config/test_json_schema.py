"""`tune_configs/schema.json`, by which editors check configs, agrees with what the program accepts."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from clray.config import Config, dump_yaml, load_config, parse_config
from clray.config.json_schema import as_text, json_schema
from clray.config.yaml_text import parse_yaml, read_yaml
from clray.errors import UserError
from clray.sweeps.search_space import plan_sweep
from tests.conftest import REPOSITORY, TINY

FOLDER = REPOSITORY / "tune_configs"
CONFIGS = [*sorted(FOLDER.glob("*.yaml")), *sorted((FOLDER / "paper").glob("*.yaml"))]


def check(tree: Any) -> None:
    jsonschema.validate(tree, json_schema())


def test_the_file_is_generated_from_the_sections() -> None:
    written = (FOLDER / "schema.json").read_text(encoding="utf-8")
    assert written == as_text(), "run scripts/config_reference.sh"
    jsonschema.Draft7Validator.check_schema(json_schema())


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_names_the_schema_and_follows_it(path: Path) -> None:
    first = path.read_text(encoding="utf-8").split("\n", 1)[0]
    assert first.startswith("# yaml-language-server: $schema=")
    assert (path.parent / first.partition("=")[2]).samefile(FOLDER / "schema.json")
    check(read_yaml(path))


@pytest.mark.parametrize(
    "text",
    [
        "extends: other.yaml\nkmeans:\nsearch_space:",
        "search_space: {objective.temperature: {loguniform: [0.1, 1]}, seed: 3}",
        "clusters: {source: 'mine:make', granularities: [500, 50]}\nallow_user_modules: true",
        "kmeans: {node_labels: {pool: cpu}}\ntrain: {num_epochs: 2e1}",
        "sweep: {searcher: 'm:Class', searcher_options: {a: [1]}}",
    ],
)
def test_what_a_config_may_hold_passes(text: str) -> None:
    check(parse_yaml(text, "x"))


def test_a_resolved_config_passes() -> None:
    for config in (Config(), parse_config(TINY), load_config(FOLDER / "quickstart.yaml")):
        check(parse_yaml(dump_yaml(config), "x"))


@pytest.mark.parametrize(
    "tree",
    [
        {"objectiv": {}},
        {"objective": {"temprature": 1}},
        {"objective": {"temperature": 0}},
        {"train": {"num_epochs": 1.5}},
        {"train": {"num_epochs": "3"}},
        {"train": {"optimizer": "adam"}},
        {"encoder": {"name": "resnet5"}},
        {"search_space": {"objective.temprature": {"grid_search": [1]}}},
        {"search_space": {"objective.temperature": {"grid_serch": [1]}}},
        {"search_space": {"objective.temperature": {"uniform": [1]}}},
        {"search_space": {"data.name": {"grid_search": ["csv"]}}},
    ],
    ids=str,
)
def test_what_the_program_refuses_an_editor_marks(tree: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(tree)
    with pytest.raises(UserError):
        plan_sweep(parse_config(tree))
