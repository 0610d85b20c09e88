"""What cannot go together in a config, and why: a table whose first row that applies refuses the config."""

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from clray.config.sections.model import OF_VECTORS

if TYPE_CHECKING:
    from clray.config.schema import Config

Message = str | Callable[["Config"], str]
Rule = tuple[Callable[["Config"], bool], Message]
"""Whether it applies, and what it says then."""
KEYS_OF_CODE = ("encoder.name", "clusters.source", "objective.name", "sweep.searcher")
"""Keys whose values may be `module:name`."""
PLAIN_OBJECTIVES = ("cl-infonce", "infonce", "supcon")
"""The objectives that have a form, a second head and a choice of negatives."""
CHOICES: dict[str, Callable[["Config"], bool]] = {
    "objective.form": lambda c: c.objective.form != "multi-positive",
    "objective.dual_head": lambda c: c.objective.dual_head,
    "objective.negatives": lambda c: c.objective.negatives == "queue" and c.objective.name != "pcl",
}
"""Choices of the plain objectives, and whether they were made; no two of them go together."""


def broken_rule(config: "Config") -> str | None:
    """Why these settings cannot go together, or None."""
    message = next((message for applies, message in RULES if applies(config)), None)
    return message(config) if callable(message) else message


def _value(config: "Config", key: str) -> Any:
    return attrgetter(key)(config)


def _setting(config: "Config", key: str) -> str:
    """As it is written in YAML."""
    value = _value(config, key)
    return f"{key}={str(value).lower() if isinstance(value, bool) else value}"


def _imports_code(key: str) -> Rule:
    """A value that names a user's module, which nothing allows."""

    def message(config: "Config") -> str:
        value = _value(config, key)
        module = value.partition(":")[0]
        return f"{key}={value} imports code, the module {module!r}; allow it with allow_user_modules=true"

    return lambda c: ":" in _value(c, key) and not c.allow_user_modules, message


def _belongs_to_plain_objectives(key: str) -> Rule:
    """An objective of the user's may have a second head, and decides the rest itself."""
    return (
        lambda c: (
            CHOICES[key](c)
            and c.objective.name not in PLAIN_OBJECTIVES
            and not (c.objective.is_own and key == "objective.dual_head")
        ),
        lambda c: f"{_setting(c, key)} belongs to cl-infonce; objective.name={c.objective.name} has no such choice",
    )


def weighs_positives(config: "Config") -> bool:
    """Whether the loss is a mean over several positives of an anchor."""
    return config.objective.name in PLAIN_OBJECTIVES and config.objective.form == "multi-positive"


def _chosen(config: "Config") -> list[str]:
    return [_setting(config, key) for key, is_chosen in CHOICES.items() if is_chosen(config)]


def _early_stop(config: "Config") -> str:
    sweep = config.sweep
    return "sweep.stop_dominated=true" if sweep.scheduler == "fifo" else f"sweep.scheduler={sweep.scheduler}"


def _is_pbt(config: "Config") -> bool:
    return config.sweep.scheduler == "pbt"


def _is_part_of_gpu(gpus: Any) -> bool:
    return bool(gpus != "auto" and 0 < gpus < 1)


def _takes_vectors(config: "Config") -> bool:
    return config.data.name == "embeddings"


RULES: tuple[Rule, ...] = (
    (
        lambda c: _takes_vectors(c) and c.encoder.name not in OF_VECTORS and ":" not in c.encoder.name,
        lambda c: (
            f"encoder.name={c.encoder.name} takes images, and data.name=embeddings are vectors; set "
            "encoder.name=mlp or none"
        ),
    ),
    (
        lambda c: not _takes_vectors(c) and c.encoder.name in OF_VECTORS,
        lambda c: f"encoder.name={c.encoder.name} takes vectors; data.name={c.data.name} are images",
    ),
    (
        lambda c: _takes_vectors(c) != (c.augmentation.name == "features"),
        lambda c: (
            "augmentation.name must be features where data.name=embeddings, and only there; it is "
            f"{c.augmentation.name}, and data.name={c.data.name}"
        ),
    ),
    (
        lambda c: c.objective.name == "pcl" and c.clusters.source != "kmeans",
        lambda c: (
            f"objective.name=pcl learns from k-means prototypes; set clusters.source=kmeans (it is {c.clusters.source})"
        ),
    ),
    (
        lambda c: c.objective.name == "cluster-prediction" and c.clusters.source == "instance",
        "objective.name=cluster-prediction would have one class per image; choose another clusters.source",
    ),
    (
        lambda c: (
            c.objective.name == "cluster-prediction" and c.clusters.source == "kmeans" and c.recluster.warmup_epochs > 0
        ),
        lambda c: (
            "objective.name=cluster-prediction has nothing to predict before the first clustering; set "
            f"recluster.warmup_epochs=0 (it is {c.recluster.warmup_epochs})"
        ),
    ),
    (
        lambda c: c.clusters.source == "values" and c.objective.name != "ccl-k",
        lambda c: (
            f"clusters.source=values are numbers and no clusters, which objective.name={c.objective.name} needs; set "
            "objective.name=ccl-k, or choose another clusters.source"
        ),
    ),
    (
        lambda c: (
            c.objective.name == "ccl-k" and c.objective.kernel == "cosine" and len(c.clusters.value_columns or ()) == 1
        ),
        lambda c: (
            f"objective.kernel=cosine tells the sign alone of a single column ({(c.clusters.value_columns or ())[0]}); "
            "set objective.kernel=rbf"
        ),
    ),
    *map(_imports_code, KEYS_OF_CODE),
    (
        lambda c: c.train.sampler == "cluster" and c.clusters.source in ("instance", "values"),
        lambda c: (
            f"train.sampler=cluster: with clusters.source={c.clusters.source} no cluster has a second member; use "
            "train.sampler=uniform"
        ),
    ),
    *map(_belongs_to_plain_objectives, CHOICES),
    (
        lambda c: c.objective.cluster_weight != 1 and not weighs_positives(c),
        lambda c: (
            f"{_setting(c, 'objective.cluster_weight')} weighs the positives of cl-infonce in its multi-positive form, "
            f"and the config has objective.name={c.objective.name} and objective.form={c.objective.form}; set it to 1"
        ),
    ),
    (
        lambda c: c.clusters.confidence != 1 and c.objective.name not in PLAIN_OBJECTIVES and not c.objective.is_own,
        lambda c: (
            f"{_setting(c, 'clusters.confidence')} leaves images without a cluster, and objective.name="
            f"{c.objective.name} needs one of every image; set it to 1"
        ),
    ),
    (
        lambda c: len(_chosen(c)) > 1,
        lambda c: f"{' and '.join(_chosen(c))} cannot be combined; choose one",
    ),
    (
        lambda c: c.objective.form == "pair-sampled" and c.clusters.granularities is not None,
        "objective.form=pair-sampled draws pairs of one granularity; leave out clusters.granularities",
    ),
    (
        lambda c: c.objective.is_classification and c.clusters.granularities is not None,
        lambda c: (
            f"objective.name={c.objective.name} predicts the clusters of one granularity; leave out "
            "clusters.granularities"
        ),
    ),
    (
        lambda c: (
            c.clusters.source == "kmeans"
            and c.objective.name != "pcl"
            and list(c.clusters.counts) != sorted(c.clusters.counts, reverse=True)
        ),
        lambda c: (
            "clusters.granularities of kmeans are nested, so they must fall, as in [500, 50]; got "
            f"{list(c.clusters.counts)}"
        ),
    ),
    (
        lambda c: c.sweep.stops_early and c.evaluate.every_epochs is None,
        lambda c: f"{_early_stop(c)} compares accuracies while trials run; set evaluate.every_epochs (it is not set)",
    ),
    (
        lambda c: c.sweep.prescreen and c.sweep.is_sequential,
        lambda c: (
            f"sweep.prescreen looks at all points before they are trained, and sweep.searcher={c.sweep.searcher} "
            "suggests them one by one; set sweep.searcher=grid or random"
        ),
    ),
    (
        lambda c: c.sweep.prescreen and (_is_pbt(c) or not c.sweep.share_warmup),
        lambda c: (
            "sweep.prescreen looks at the clusters that trials start from together, and "
            f"{'sweep.scheduler=pbt' if _is_pbt(c) else 'sweep.share_warmup=false'} shares none; leave out either"
        ),
    ),
    (
        lambda c: c.sweep.prescreen_keep < 1 and not c.sweep.prescreen,
        lambda c: f"sweep.prescreen_keep={c.sweep.prescreen_keep} belongs to sweep.prescreen; set sweep.prescreen=true",
    ),
    (
        lambda c: _is_pbt(c) and c.train.num_workers > 1,
        lambda c: f"sweep.scheduler=pbt needs train.num_workers=1 (it is {c.train.num_workers})",
    ),
    (
        lambda c: _is_pbt(c) and c.sweep.is_sequential,
        lambda c: (
            f"sweep.scheduler=pbt changes trials while they run, so that sweep.searcher={c.sweep.searcher} cannot "
            "learn from them; choose one of them"
        ),
    ),
    (
        lambda c: _is_pbt(c) and c.sweep.perturb_every_epochs % (c.evaluate.every_epochs or 1) != 0,
        lambda c: (
            f"sweep.perturb_every_epochs must be a multiple of evaluate.every_epochs={c.evaluate.every_epochs}; "
            f"got {c.sweep.perturb_every_epochs}"
        ),
    ),
    (
        lambda c: (
            _is_pbt(c)
            and bool(c.search_space)
            and not any(key in space for space in c.search_space for key in c.sweep.mutated)
        ),
        lambda c: f"sweep.scheduler=pbt: none of sweep.mutated ({', '.join(c.sweep.mutated)}) is in the search space",
    ),
    (
        lambda c: c.tracking.register_as is not None and c.tracking.models == "none",
        "tracking.register_as registers the best model, and tracking.models=none keeps none; set it to best",
    ),
    (
        lambda c: c.train.min_workers is None and c.train.global_batch_size % c.train.num_workers != 0,
        lambda c: (
            f"train.global_batch_size must be a multiple of train.num_workers={c.train.num_workers}; "
            f"got {c.train.global_batch_size}"
        ),
    ),
    (
        lambda c: c.train.min_workers is not None and c.train.min_workers >= c.train.num_workers,
        lambda c: (
            f"train.min_workers must be below train.num_workers={c.train.num_workers}; got {c.train.min_workers}; "
            "leave it out for a fixed number"
        ),
    ),
    (
        lambda c: c.train.min_workers is not None and c.train.global_batch_size < 2 * c.train.num_workers,
        lambda c: (
            f"train.global_batch_size must leave each of train.num_workers={c.train.num_workers} two images; "
            f"got {c.train.global_batch_size}"
        ),
    ),
    (
        lambda c: c.train.min_workers is not None and c.train.deterministic,
        "train.deterministic=true: with train.min_workers the batches depend on the nodes that are there; set "
        "train.num_workers to one number",
    ),
    (
        lambda c: c.train.deterministic and c.clusters.source == "kmeans" and c.recluster.mode == "async",
        "train.deterministic=true: with recluster.mode=async the step at which new clusters arrive differs from run to "
        "run; set recluster.mode=sync",
    ),
    (
        lambda c: (
            c.train.deterministic
            and c.clusters.source == "kmeans"
            and c.kmeans.backend == "faiss"
            and c.kmeans.gpus_per_shard > 0
        ),
        "train.deterministic=true: the sums of FAISS on a GPU differ from run to run; set kmeans.backend=torch, or "
        "kmeans.gpus_per_shard=0",
    ),
    (
        lambda c: c.train.num_workers > 1 and _is_part_of_gpu(c.train.gpus_per_worker),
        lambda c: (
            f"train.gpus_per_worker={c.train.gpus_per_worker:g}: each of train.num_workers={c.train.num_workers} needs "
            "a GPU of its own, as NCCL takes one process a GPU; set it to 1, or train.num_workers=1"
        ),
    ),
    (
        lambda c: c.clusters.source == "kmeans" and c.recluster.warmup_epochs >= c.train.num_epochs,
        lambda c: (
            f"recluster.warmup_epochs must be below train.num_epochs={c.train.num_epochs}, or k-means clusters "
            f"are never used; got {c.recluster.warmup_epochs}"
        ),
    ),
)
"""In the order in which they are asked: a rule may rely on those before it."""
