from collections.abc import Mapping
from typing import Any

import pytest

from clray.config import Config, parse_config, with_overrides
from clray.config.rules import RULES, broken_rule
from clray.errors import UserError

PBT = {"sweep.scheduler": "pbt", "evaluate.every_epochs": 1}
VECTORS = {"data.name": "embeddings", "data.train_path": "x.npy"}
BROKEN: list[tuple[Mapping[str, Any], str]] = [
    (
        {**VECTORS, "encoder.name": "resnet18"},
        "encoder.name=resnet18 takes images, and data.name=embeddings are vectors",
    ),
    ({"encoder.name": "mlp"}, "encoder.name=mlp takes vectors; data.name=digits are images"),
    ({**VECTORS, "augmentation.name": "simclr"}, "augmentation.name must be features where data.name=embeddings"),
    ({"objective.name": "pcl", "clusters.source": "labels"}, "set clusters.source=kmeans (it is labels)"),
    ({"objective.name": "cluster-prediction", "clusters.source": "instance"}, "one class per image"),
    ({"objective.name": "cluster-prediction"}, "set recluster.warmup_epochs=0 (it is 1)"),
    (
        {"clusters.source": "values", "clusters.path": "x.npy"},
        "values are numbers and no clusters, which objective",
    ),
    (
        {"objective.name": "ccl-k", "clusters.value_columns": ["age"]},
        "single column (age); set objective.kernel=rbf",
    ),
    ({"encoder.name": "mine:make"}, "encoder.name=mine:make imports code, the module 'mine'"),
    ({"clusters.source": "mine:make"}, "clusters.source=mine:make imports code, the module 'mine'"),
    ({"objective.name": "mine:Loss"}, "objective.name=mine:Loss imports code, the module 'mine'"),
    ({"sweep.searcher": "mine:Search"}, "sweep.searcher=mine:Search imports code, the module 'mine'"),
    ({"train.sampler": "cluster", "clusters.source": "instance"}, "use train.sampler=uniform"),
    ({"objective.form": "pair-sampled", "objective.name": "pcl"}, "objective.form=pair-sampled belongs to cl-infonce"),
    ({"objective.dual_head": True, "objective.name": "pcl"}, "objective.dual_head=true belongs to cl-infonce"),
    ({"objective.negatives": "queue", "objective.name": "supervised"}, "objective.negatives=queue belongs to"),
    ({"objective.cluster_weight": 0.5, "objective.name": "pcl"}, "objective.cluster_weight=0.5 weighs the positives"),
    ({"clusters.confidence": 0.5, "objective.name": "pcl"}, "clusters.confidence=0.5 leaves images without a cluster"),
    ({"objective.dual_head": True, "objective.negatives": "queue"}, "dual_head=true and objective.negatives=queue can"),
    ({"objective.form": "pair-sampled", "clusters.granularities": [9, 3]}, "draws pairs of one granularity"),
    (
        {"objective.name": "cluster-prediction", "recluster.warmup_epochs": 0, "clusters.granularities": [9, 3]},
        "objective.name=cluster-prediction predicts the clusters of one granularity",
    ),
    ({"clusters.granularities": [3, 9]}, "so they must fall, as in [500, 50]; got [3, 9]"),
    ({"sweep.stop_dominated": True}, "sweep.stop_dominated=true compares accuracies while trials run"),
    ({"train.num_workers": [4, 4]}, "train.min_workers must be below train.num_workers=4; got 4"),
    (
        {"train.num_workers": [1, 8], "train.global_batch_size": 15},
        "train.global_batch_size must leave each of train.num_workers=8 two images; got 15",
    ),
    (
        {"train.num_workers": [1, 2], "train.deterministic": True},
        "with train.min_workers the batches depend on the nodes",
    ),
    ({**PBT, "train.num_workers": 2}, "sweep.scheduler=pbt needs train.num_workers=1 (it is 2)"),
    ({**PBT, "sweep.searcher": "optuna"}, "sweep.searcher=optuna cannot learn from them"),
    ({**PBT, "evaluate.every_epochs": 2}, "a multiple of evaluate.every_epochs=2; got 5"),
    ({**PBT, "search_space": {"seed": {"choice": [1, 2]}}}, "objective.temperature, train.learning_rate) is in the"),
    ({"tracking.register_as": "mine", "tracking.models": "none"}, "tracking.models=none keeps none; set it to best"),
    ({"train.num_workers": 3}, "a multiple of train.num_workers=3; got 128"),
    ({"train.deterministic": True, "recluster.mode": "async"}, "set recluster.mode=sync"),
    (
        {"train.deterministic": True, "kmeans.backend": "faiss", "kmeans.gpus_per_shard": 1},
        "the sums of FAISS on a GPU differ from run to run",
    ),
    ({"train.gpus_per_worker": 0.5, "train.num_workers": 2}, "as NCCL takes one process a GPU"),
    ({"sweep.prescreen": True, "sweep.searcher": "optuna"}, "and sweep.searcher=optuna suggests them one by one"),
    ({"sweep.prescreen": True, "sweep.share_warmup": False}, "and sweep.share_warmup=false shares none"),
    ({"sweep.prescreen_keep": 0.5}, "sweep.prescreen_keep=0.5 belongs to sweep.prescreen"),
    ({"recluster.warmup_epochs": 10}, "recluster.warmup_epochs must be below train.num_epochs=10"),
]


def test_defaults_break_no_rule() -> None:
    assert broken_rule(Config()) is None


@pytest.mark.parametrize(("settings", "message"), BROKEN, ids=[message[:40] for _, message in BROKEN])
def test_a_broken_rule_names_what_cannot_go_together(settings: Mapping[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_config(with_overrides({}, settings))
    assert message in str(refused.value)


@pytest.mark.parametrize("name", ["infonce", "supcon", "supervised"])
def test_baselines_are_what_their_names_say(name: str) -> None:
    """Beside points of a sweep that weigh their positives."""
    chosen = {"objective.name": name, "objective.cluster_weight": 0.3, "clusters.confidence": 0.3}
    assert parse_config(with_overrides({}, chosen)) == parse_config(with_overrides({}, {"objective.name": name}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("objective.dual_head", True, "objective.name=ccl-k has no such choice"),
        ("objective.negatives", "queue", "objective.name=ccl-k has no such choice"),
        ("objective.form", "pair-sampled", "objective.name=ccl-k has no such choice"),
        ("train.sampler", "cluster", "with clusters.source=values no cluster has a second member"),
        ("clusters.value_columns", ["age", "weight"], "both are set"),
        ("clusters.path", None, "neither is set"),
        ("objective.ridge", 0, "objective.ridge"),
        ("objective.bandwidth", 0, "objective.bandwidth"),
        ("objective.kernel", "sigmoid", "'polynomial'"),
    ],
)
def test_ccl_k_refuses_what_it_has_no_use_for(key: str, value: object, message: str) -> None:
    known = {"objective.name": "ccl-k", "clusters.path": "x.npy"}
    assert parse_config(with_overrides({}, known)).clusters.source == "values"
    with pytest.raises(UserError, match=message):
        parse_config(with_overrides({}, {**known, key: value}))


def test_each_rule_has_a_config_that_breaks_it() -> None:
    assert len(BROKEN) == len(RULES)
