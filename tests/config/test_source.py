from pathlib import Path

import numpy as np
import pytest
import yaml

from clray.config import Config, dump_yaml, load_tree, parse_assignment, parse_config, read_config
from clray.errors import UserError


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.yaml"
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text, encoding="utf-8")
    return folder / f"{next(iter(files)).replace('__', '/')}.yaml"


def test_a_config_extends_another_from_its_own_folder(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        mine__x="extends: ../base.yaml\nobjective: {temperature: 0.5}\nsearch_space: {seed: {grid_search: [3]}}\n",
        base="extends: deep/root.yaml\nclusters: {num_clusters: 7}\nobjective: {temperature: 0.1, queue_size: 8}\n",
        deep__root="seed: 4\ntrain: {num_epochs: 30}\nclusters: {num_clusters: 5}\n"
        "search_space: {clusters.num_clusters: {grid_search: [5]}}\n",
    )
    config = read_config(path)
    assert (config.seed, config.train.num_epochs, config.clusters.num_clusters) == (4, 30, 7)
    assert (config.objective.temperature, config.objective.queue_size) == (0.5, 8)
    assert config.search_space == ({"seed": {"grid_search": [3]}},)
    assert parse_config(yaml.safe_load(dump_yaml(config))) == config
    assert "extends" not in dump_yaml(config)
    assert "extends" not in load_tree(path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "extends: a.yaml"}, "leads back to itself"),
        ({"a": "extends: b.yaml", "b": "extends: sub/../a.yaml", "sub__c": ""}, "leads back to itself"),
        ({"a": "extends: nowhere.yaml"}, r"a\.yaml: extends nowhere\.yaml: .*no such config file"),
        ({"a": "extends: [b.yaml]", "b": ""}, "extends must be the path of a config"),
        ({"a": "extends: b.yaml", "b": "seed: {"}, r"extends b\.yaml: .*line 1"),
        ({"a": "extends: b.yaml", "b": "extends: c.yaml\nclusters: 5", "c": ""}, "clusters must be a section"),
    ],
)  # fmt: skip
def test_a_bad_base_is_refused_by_name(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_config(write(tmp_path, **files))


def test_a_config_comes_from_a_path_a_text_a_dict_or_a_config(tmp_path: Path) -> None:
    path = write(tmp_path, x="clusters: {num_clusters: 5}")
    expected = Config.model_validate({"clusters": {"num_clusters": 5}})
    for source in (path, str(path), {"clusters": {"num_clusters": 5}}, expected):
        assert read_config(source) == expected
        assert read_config(source, {"clusters.num_clusters": np.int64(6)}).clusters.num_clusters == 6
    tree = {"data": {"train_path": tmp_path, "name": "csv"}, "clusters": {"granularities": (8, np.int32(4))}}
    config = read_config(tree)
    assert (config.data.train_path, config.clusters.granularities) == (str(tmp_path), (8, 4))


@pytest.mark.parametrize(
    "source",
    [
        5, None, b"x.yaml", ["x.yaml"], {1: 2}, {"data": object()}, {"seed": {1, 2}}, {"seed": 10**5000},
        {"search_space": {"seed": object()}}, {"sweep": {"searcher_options": {"x": lambda: 1}}}, {"seed": np.arange(3)},
        {"objective": {"temperature": b"1"}}, {"output": "\ud800"},
    ],
    ids=lambda source: type(source).__name__,
)  # fmt: skip
def test_what_is_no_config_is_refused_without_an_address(source: object) -> None:
    with pytest.raises(UserError) as caught:
        read_config(source)
    assert " at 0x" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_a_tree_that_holds_itself_is_refused() -> None:
    tree: dict = {}
    tree["data"] = tree
    with pytest.raises(UserError, match="nested more than 50 deep"):
        read_config(tree)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("=", "expected KEY=VALUE"),
        ("", "expected KEY=VALUE"),
        ("clusters.num_clusters", "expected KEY=VALUE"),
        ("=5", "expected KEY=VALUE"),
        ("a.b.c=1", r"unknown key 'a\.b\.c'"),
        ("clusters=3", r"clusters is a section; set one of its keys, such as clusters\.source"),
        ("search_space=3", "unknown key 'search_space'"),
        ("clusters.num_clustérs=3", r"Did you mean 'clusters\.num_clusters'"),
        ("\udcff=3", r"unknown key '\\udcff'"),
        ("seed=[", "setting seed, line 1: not readable"),
        ("seed=&a [*a, !!python/name:os.x y]", "not allowed"),
        ("seed=a: b: c", "not readable"),
    ],
)
def test_a_bad_assignment_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_assignment(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("data.label_column=007", "007"),
        ("data.label_column=5", "5"),
        ("data.label_column=nan", "nan"),
        ("data.label_column=yes", "yes"),
        ("data.label_column=1e5", "1e5"),
        ("data.label_column=", None),
        ("data.label_column=null", None),
        ("data.label_column='null'", "null"),
        ("data.train_path=a=b", "a=b"),
        ("train.learning_rate=1e-3", 1e-3),
        ("train.sync_batch_norm=true", True),
        ("clusters.granularities=[8, 4]", [8, 4]),
        ("clusters.num_clusters= 5 ", 5),
    ],
)
def test_an_assignment_gives_what_its_key_holds(text: str, value: object) -> None:
    assert parse_assignment(text) == (text.partition("=")[0], value)


def test_an_override_does_not_hide_that_its_section_is_none() -> None:
    with pytest.raises(UserError, match="data must be a section of keys; got 'digits'"):
        read_config({"data": "digits"}, {"data.image_size": 8})
