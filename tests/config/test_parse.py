from pathlib import Path

import pytest
import yaml

from clray.config import Config, dump_yaml, flatten, load_config, override, parse_config, stored_config, with_overrides
from clray.errors import UserError


@pytest.mark.parametrize(
    ("tree", "messages"),
    [
        ({"clusters": {"num_cluster": 5}}, ["unknown key 'clusters.num_cluster'", "'clusters.num_clusters'"]),
        ({"objectiv": {}}, ["unknown key 'objectiv'", "'objective'"]),
        ({"objective": {"temperature": 0}}, ["objective.temperature", "greater than 0", "got 0"]),
        ({"objective": {"temperature": -0.1}}, ["objective.temperature", "greater than 0", "got -0.1"]),
        ({"clusters": {"num_clusters": 1}}, ["clusters.num_clusters", "greater than or equal to 2", "got 1"]),
        ({"clusters": {"source": "kmean"}}, ["clusters.source", "clustering, kmeans, or", "got 'kmean'"]),
        ({"clusters": {"source": "column"}}, ["clusters.column is required"]),
        ({"data": {"name": "parquet"}}, ["data.train_path is required"]),
        ({"train": {"global_batch_size": 33, "num_workers": 2}}, ["multiple of train.num_workers=2", "got 33"]),
        ({"train": {"num_epochs": 3}, "recluster": {"warmup_epochs": 3}}, ["recluster.warmup_epochs", "got 3"]),
        ({"sweep": {"metric": "accuracy"}}, ["sweep.metric", "'eval/knn_accuracy'", "got 'accuracy'"]),
        ({"objective": {"name": "pcl"}, "clusters": {"source": "labels"}}, ["pcl", "set clusters.source=kmeans"]),
        ({"objective": {"name": "cluster-prediction"}}, ["set recluster.warmup_epochs=0 (it is 1)"]),
        ({"objective": {"name": "infonce"}, "train": {"sampler": "cluster"}}, ["no cluster has a second member"]),
        ({"objective": {"name": "supervised", "negatives": "queue"}}, ["objective.negatives=queue belongs to"]),
        ({"objective": {"dual_head": True, "negatives": "queue"}}, ["cannot be combined"]),
        ({"objective": {"dual_head_clusters": "instance-head"}}, ["set objective.dual_head=true"]),
        (
            {
                "allow_user_modules": True,
                "objective": {"name": "a:B", "dual_head": True, "dual_head_clusters": "instance-head"},
            },
            ["belongs to cl-infonce", "a:B"],
        ),
        (
            {"train": {"warmup_epochs": 2, "learning_rate_warmup_fraction": 0.3}},
            ["train.learning_rate_warmup_fraction=0.3", "train.warmup_epochs=2", "leave one out"],
        ),
        ({"train": {"learning_rate_warmup_fraction": 1}}, ["train.learning_rate_warmup_fraction", "less than 1"]),
        ({"train": {"optimizer": "lars", "decay_biases": True}}, ["decay_biases=true", "lars"]),
        ({"head": {"num_layers": 0}}, ["head.num_layers"]),
        ({"head": {"norm": "layer"}}, ["head.norm", "batch"]),
        ({"clusters": {"source": "labels", "granularities": [3]}}, ["clusters.source=labels does not have"]),
        ({"clusters": {"granularities": [5, 50]}}, ["must fall"]),
        ({"clusters": {"source": "hierarchy"}}, ["clusters.tree is required"]),
        (
            {"clusters": {"attribute_order": ["a", "b", "a", "c", "b"]}},
            ["clusters.attribute_order must name each attribute once and repeats a, b"],
        ),
        ({"clusters": {"attribute_columns": ["a", "a"]}}, ["clusters.attribute_columns must name each", "repeats a"]),
        (
            {"clusters": {"source": "attributes", "attribute_order": ["a", "b"], "num_attributes": 3}},
            ["clusters.num_attributes must be at most 2", "clusters.attribute_order; got 3"],
        ),
        ({"clusters": {"attribute_order": []}}, ["clusters.attribute_order is empty; name the attributes"]),
        (
            {"clusters": {"attribute_order": list("abc"), "attribute_columns": ["a"]}},
            ["leave out clusters.attribute_columns"],
        ),
        ({"clusters": {"confidence": 1.2}}, ["clusters.confidence", "less than or equal to 1; got 1.2"]),
        ({"clusters": {"confidence": -0.1}}, ["clusters.confidence", "greater than or equal to 0; got -0.1"]),
        ({"objective": {"cluster_weight": 1.5}}, ["objective.cluster_weight", "less than or equal to 1; got 1.5"]),
        ({"objective": {"cluster_weight": -1}}, ["objective.cluster_weight", "greater than or equal to 0; got -1"]),
        ({"train": {"num_epochs": "many"}}, ["train.num_epochs", "got 'many'"]),
    ],
)
def test_a_bad_config_names_key_value_and_way_out(tree: dict, messages: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        parse_config(tree)
    for message in messages:
        assert message in str(caught.value)


def test_every_problem_has_a_line() -> None:
    with pytest.raises(UserError) as caught:
        parse_config({"train": {"num_epochs": 0}, "objective": {"temperature": 0}})
    assert len(str(caught.value).splitlines()) == 2


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("objective: {temperature: 0.5}\n", encoding="utf-8")
    config = load_config(path, ["objective.temperature=1e-1", "clusters.num_clusters=50"])
    assert (config.objective.temperature, config.clusters.num_clusters) == (0.1, 50)


def test_an_unknown_key_in_an_override_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("seed: 1\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"unknown key 'objective\.temprature'.*'objective\.temperature'"):
        load_config(tmp_path / "x.yaml", ["objective.temprature=1"])


def test_printed_config_reads_back_as_itself() -> None:
    config = parse_config({"train": {"learning_rate": 1e-5}, "search_space": {"seed": {"grid_search": [0, 1]}}})
    assert parse_config(yaml.safe_load(dump_yaml(config))) == config


def test_a_missing_file_lists_those_beside_it(tmp_path: Path) -> None:
    (tmp_path / "there.yaml").touch()
    with pytest.raises(UserError, match=r"no such config file.*there\.yaml"):
        load_config(tmp_path / "here.yaml")


def test_yaml_cannot_make_objects(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("seed: !!python/object/apply:os.getpid []\n", encoding="utf-8")
    with pytest.raises(UserError, match="not readable as YAML"):
        load_config(path)


def test_a_stored_config_cannot_allow_its_own_modules() -> None:
    tree = {"allow_user_modules": True, "encoder": {"name": "planted:build"}}
    with pytest.raises(UserError, match=r"^x/checkpoint\.pt: encoder\.name=planted:build .*'planted'.*allow_user_m"):
        stored_config(tree, {}, "x/checkpoint.pt")
    assert stored_config(tree, {"allow_user_modules": True}, "x").encoder.name == "planted:build"
    assert stored_config(tree, {"encoder.name": "resnet18"}, "x").encoder.name == "resnet18"
    assert not stored_config(tree, {"encoder.name": "resnet18"}, "x").allow_user_modules
    with pytest.raises(UserError, match="x: holds no clray config"):
        stored_config(None, {}, "x")


def test_override_leaves_the_config_as_it_was() -> None:
    config = Config()
    assert override(config, {"train.num_epochs": 3}).train.num_epochs == 3
    assert config.train.num_epochs == Config().train.num_epochs


def test_flat_keys_are_dotted() -> None:
    assert flatten({"a": {"b": 1, "c": {"d": 2}}, "e": 3}) == {"a.b": 1, "a.c.d": 2, "e": 3}


@pytest.mark.parametrize(("name", "source"), [("infonce", "instance"), ("supcon", "labels"), ("supervised", "labels")])
def test_one_word_changes_objective_and_clusters(name: str, source: str) -> None:
    config = parse_config({"clusters": {"source": "kmeans", "granularities": [9, 3]}, "objective": {"name": name}})
    assert config.clusters.source == source
    assert override(Config(), {"objective.name": name}).clusters.source == source


def test_keys_of_the_former_probe_are_read_and_named_as_ignored() -> None:
    config = parse_config({"evaluate": {"probe_epochs": 50, "probe_batch_size": 128, "labels_per_class": 5}})
    assert config.evaluate.ignored == ("evaluate.probe_epochs", "evaluate.probe_batch_size")
    assert parse_config(config.model_dump(mode="json")).evaluate.ignored == ()
    assert "probe" not in dump_yaml(config)


@pytest.mark.parametrize(
    ("given", "budgets"),
    [(None, (None,)), (5, (5,)), (["all"], (None,)), ([1, 10, "all", 1], (1, 10, None))],
)
def test_label_budgets_are_a_number_or_a_list(given: object, budgets: tuple[int | None, ...]) -> None:
    assert parse_config({"evaluate": {"labels_per_class": given}}).evaluate.budgets == budgets


@pytest.mark.parametrize("given", [0, [], [0], "all", ["some"], [1.5]])
def test_other_label_budgets_are_refused(given: object) -> None:
    with pytest.raises(UserError, match="labels_per_class"):
        parse_config({"evaluate": {"labels_per_class": given}})


def test_a_range_of_workers_is_its_fewest_and_its_most() -> None:
    config = parse_config({"train": {"num_workers": [2, 8]}})
    assert (config.train.min_workers, config.train.num_workers) == (2, 8)
    assert list(config.train.group_sizes) == list(range(2, 9))
    assert parse_config(config.model_dump(mode="json")) == config
    assert parse_config(with_overrides({}, {"train.num_workers": [2, 8]})) == config
    assert list(parse_config({"train": {"num_workers": 2}}).train.group_sizes) == [2]


@pytest.mark.parametrize(
    ("overrides", "fewest", "most"),
    [
        ({"train.num_workers": 4}, None, 4),
        ({"train.num_workers": [1, 4]}, 1, 4),
        ({"train.min_workers": 3, "train.num_workers": 4}, 3, 4),
        ({"train.min_workers": 3}, 3, 8),
        ({"train.num_epochs": 7}, 2, 8),
    ],
)
def test_workers_set_anew_replace_a_range(overrides: dict, fewest: int | None, most: int) -> None:
    tree = {"train": {"num_workers": 8, "min_workers": 2}}
    for config in (override(parse_config(tree), overrides), parse_config(with_overrides(tree, overrides))):
        assert (config.train.min_workers, config.train.num_workers) == (fewest, most)


@pytest.mark.parametrize("train", [{"num_workers": [2]}, {"num_workers": [2, 8], "min_workers": 2}])
def test_other_lists_of_workers_are_refused(train: dict) -> None:
    with pytest.raises(UserError, match=r"expected a number, or the fewest and the most such as \[2, 8\]"):
        parse_config({"train": train})
