"""The paper's experiments on fixtures in the layout of its data sets, as small as they can be."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from clray.config import load_config, load_tree, with_overrides
from clray.sweeps.search_space import plan_sweep
from tests.conftest import REPOSITORY
from tests.data.readers.published.layouts import write_cub, write_imagenet, write_wider, write_zappos

IN_EVERY_RUN = ("cub200_attributes",)
CONFIGS = sorted((REPOSITORY / "tune_configs" / "paper").glob("*.yaml"))
WRITERS = {
    "zappos50k": write_zappos,
    "cub200": write_cub,
    "wider_attribute": write_wider,
    "imagenet100": write_imagenet,
}
SMALL = {
    "data.image_size": 16,
    "encoder.name": "small_cnn",
    "encoder.width": 4,
    "head.hidden_dim": 8,
    "head.embedding_dim": 4,
    "train.num_epochs": 1,
    "train.warmup_epochs": 0,
    "train.num_workers": 1,
    "recluster.warmup_epochs": 0,
    "train.global_batch_size": 2,
    "train.gpus_per_worker": 0,
    "evaluate.num_neighbors": 1,
    "clusters.num_clusters": 2,
    "clusters.num_attributes": 3,
    "clusters.num_merged": 2,
    "clusters.level": 1,
    "tracking.pictures": "none",
    "tracking.models": "none",
}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_says_where_it_comes_from_and_plans_its_trials(path: Path) -> None:
    head = path.read_text(encoding="utf-8").split("seed:")[0]
    for word in ("Source", "Data", "Command", "Settings", "Published accuracies: not at hand", "Run here"):
        assert word in head
    plan = plan_sweep(load_config(path))
    assert plan.num_trials >= 4
    assert {point.config.train.optimizer for point in plan.points} == {"lars" if "dual" in path.stem else "sgd"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[] if path.stem in IN_EVERY_RUN else pytest.mark.long) for path in CONFIGS],
)
def test_every_experiment_runs_on_a_fixture_of_its_data(
    clray: Callable[..., object], tmp_path: Path, path: Path
) -> None:
    tree = load_tree(path)
    name = tree["data"]["name"]
    root = WRITERS[name](tmp_path / "root")
    changes = {**SMALL, "data.train_path": str(root)}
    if name == "imagenet100":
        changes |= {"data.classes_path": str(root / "classes.txt"), "clusters.tree": str(root / "tree.yaml")}
        (root / "tree.yaml").write_text("thing: {animal: [n01496331, n02117135], vehicle: [n04612504]}")
    if name == "zappos50k":
        changes["data.test_fraction"] = 0.4
    tree = with_overrides(tree, changes)
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(tree), encoding="utf-8")
    done = clray("train", tmp_path / "small.yaml", "-o", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    metrics = json.loads(done.stdout)["metrics"]
    assert metrics["clusters/num_clusters"] >= 2
    assert 0 <= metrics["eval/linear_accuracy"] <= 1
