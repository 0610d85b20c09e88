"""Every key is either each trial's own, or refused in a search space."""

import ast
import inspect
from collections.abc import Iterator
from types import ModuleType

import pytest

from clray import preparing
from clray.config import Config, known_keys, override, parse_config, with_overrides
from clray.config.once import ONCE_PER_SWEEP
from clray.errors import UserError
from clray.kmeans.shards import actors
from clray.sweeps import book, schedulers, search_space, searchers, summary, tuner, watching
from clray.sweeps.search_space import plan_sweep

OTHER_VALUES = {
    "augmentation.name": "digits",
    "augmentation.small_crop_scale": [0.1, 0.2],
    "augmentation.small_view_size": 14,
    "augmentation.view_size": 16,
    "clusters.attribute_columns": ["color"],
    "clusters.attribute_order": ["color", "shape", "weight"],
    "clusters.column": "color",
    "clusters.confidence_by": "random",
    "clusters.granularities": [8, 4],
    "clusters.path": "/clusters",
    "clusters.source": "labels",
    "clusters.tree": "/tree.yaml",
    "clusters.value_columns": ["age", "weight"],
    "encoder.image_size": 64,
    "encoder.pixel_statistics": "own",
    "encoder.mean": [0.4],
    "encoder.std": [0.4],
    "encoder.weights": "/weights.pt",
    "encoder.name": "resnet18",
    "head.norm": "batch",
    "kmeans.init": "kmeans++",
    "objective.dual_head_clusters": "instance-head",
    "objective.form": "pair-sampled",
    "objective.kernel": "rbf",
    "objective.kernel_form": "mean-of-logs",
    "objective.name": "supcon",
    "objective.negatives": "queue",
    "recluster.embeddings": "pass",
    "recluster.mode": "async",
    "train.decay_biases": True,
    "train.float32_matmul_precision": "highest",
    "train.gpus_per_worker": 0.5,
    "train.learning_rate_warmup_fraction": 0.5,
    "train.optimizer": "sgd",
    "train.precision": "float32",
    "train.sampler": "cluster",
}
COLOURS = {"encoder.mean": [0.5], "encoder.std": [0.5]}
WITH_OTHERS: dict[str, dict[str, object]] = {
    **dict.fromkeys(COLOURS, COLOURS),
    "objective.dual_head_clusters": {"objective.dual_head": True},
    "encoder.keep_norm_statistics": {"encoder.weights": "weights.pt"},
    "train.min_workers": {"train.num_workers": 4},
}
"""The config in which a key can be set at all."""
READ_FOR_BOTH = {
    "seed": "the draws of a search follow the sweep's seed, and each trial its own",
    "clusters.source": "warned about by the command, whose points are judged one by one",
}


def other_value(key: str) -> object:
    value: object = Config()
    for part in key.split("."):
        value = getattr(value, part)
    if key in OTHER_VALUES:
        return OTHER_VALUES[key]
    if value is None:
        return 2
    if isinstance(value, bool):
        return not value
    if isinstance(value, float):
        return value / 2 or 0.5
    return value * 2 or 1


def is_refused(key: str) -> bool:
    return any(key == shared or key.startswith(f"{shared}.") for shared in ONCE_PER_SWEEP)


@pytest.mark.parametrize("key", known_keys())
def test_a_key_reaches_its_trials_or_is_refused_with_the_reason(key: str) -> None:
    if is_refused(key):
        with pytest.raises(UserError, match=rf"search_space\.{key}: .*Set it outside the search space"):
            plan_sweep(parse_config({"search_space": {key: {"grid_search": [1]}}}))
        return
    value = other_value(key)
    base = with_overrides({}, WITH_OTHERS.get(key, {}))
    (point,) = plan_sweep(parse_config({**base, "search_space": {key: {"grid_search": [value]}}})).points
    # What a trial makes of its parameters, as `train_trial` does.
    trial = override(parse_config(base), point.overrides)
    default = Config().model_dump(mode="json")
    for part in key.split("."):
        default = default[part]
    reached = trial.model_dump(mode="json")
    for part in key.split("."):
        reached = reached[part]
    assert reached == value != default


def test_the_table_names_keys_that_exist() -> None:
    assert all(any(is_refused(key) and key.startswith(shared) for key in known_keys()) for shared in ONCE_PER_SWEEP)


def keys_read(module: ModuleType) -> Iterator[str]:
    """Dotted keys that code reads from a variable `config`, which in these modules is that of the whole sweep."""
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        parts, inner = [], node
        while isinstance(inner, ast.Attribute):
            parts.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name) and inner.id == "config" and parts:
            yield ".".join(reversed(parts))


@pytest.mark.parametrize("module", [tuner, schedulers, searchers, book, summary, watching, search_space])
def test_what_a_sweep_reads_for_all_its_trials_is_refused(module: ModuleType) -> None:
    for read in keys_read(module):
        for key in known_keys():
            if key == read or read.startswith(f"{key}."):
                assert is_refused(key) or key in READ_FOR_BOTH, f"{module.__name__} reads {key}"


def test_what_the_shards_take_from_the_config_is_refused() -> None:
    source = inspect.getsource(actors)
    read = {
        node.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "config"
    }
    assert {"num_shards", "cpus_per_shard"} <= read
    assert all(is_refused(f"kmeans.{name}") for name in read)


def test_the_images_are_loaded_from_the_section_that_is_refused() -> None:
    assert "load_parts(config.data, config.evaluate.targets)" in inspect.getsource(preparing.load_data)
