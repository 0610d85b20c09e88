"""The experiment as one pydantic tree: YAML, dotted overrides, validation and nearest-key hints.

Imports neither torch nor Ray nor MLflow, so that a refused config answers at once.
"""

import difflib
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError, model_validator

from clray.redaction import hide_in_tree
from clray.sections import (
    OBJECTIVE_SOURCES,
    AugmentationConfig,
    ClustersConfig,
    DataConfig,
    EncoderConfig,
    EvaluateConfig,
    HeadConfig,
    KMeansConfig,
    NonNegativeInt,
    ObjectiveConfig,
    ReclusterConfig,
    Section,
    SweepConfig,
    TrackingConfig,
    TrainConfig,
)


class UserError(ValueError):
    """Something the user can put right: bad config, missing file, unreadable data. The CLI exits with code 2."""


class Config(Section):
    """One experiment. `search_space` maps dotted keys to Tune domains; a list of such maps is searched one by one."""

    seed: NonNegativeInt = 0
    output: str = "outputs"
    allow_user_modules: bool = False
    """Let `encoder.name: module:function` import code of the user's."""
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    clusters: ClustersConfig = ClustersConfig()
    recluster: ReclusterConfig = ReclusterConfig()
    kmeans: KMeansConfig = KMeansConfig()
    encoder: EncoderConfig = EncoderConfig()
    head: HeadConfig = HeadConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    tracking: TrackingConfig = TrackingConfig()
    sweep: SweepConfig = SweepConfig()
    search_space: tuple[dict[str, Any], ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _search_space_as_list(cls, tree: Any) -> Any:
        if isinstance(tree, dict) and isinstance(tree.get("search_space"), dict):
            return {**tree, "search_space": [tree["search_space"]]}
        if isinstance(tree, dict) and tree.get("search_space", ()) is None:
            return {**tree, "search_space": []}
        return tree

    @model_validator(mode="before")
    @classmethod
    def _objective_chooses_its_source(cls, tree: Any) -> Any:
        objective = tree.get("objective") if isinstance(tree, dict) else None
        source = OBJECTIVE_SOURCES.get(objective.get("name")) if isinstance(objective, dict) else None
        if source is None:
            return tree
        return {**tree, "clusters": {**(tree.get("clusters") or {}), "source": source, "granularities": None}}

    @model_validator(mode="after")
    def _objective_makes_sense(self) -> "Config":
        reason = _nonsense(self) or _bad_schedule(self)
        if reason is not None:
            raise ValueError(reason)
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> "Config":
        if self.train.global_batch_size % self.train.num_workers:
            raise ValueError(
                f"train.global_batch_size must be a multiple of train.num_workers={self.train.num_workers}; "
                f"got {self.train.global_batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _reclusters_in_time(self) -> "Config":
        if self.clusters.source == "kmeans" and self.recluster.warmup_epochs >= self.train.num_epochs:
            raise ValueError(
                f"recluster.warmup_epochs must be below train.num_epochs={self.train.num_epochs}, or k-means clusters "
                f"are never used; got {self.recluster.warmup_epochs}"
            )
        return self


def _bad_schedule(config: Config) -> str | None:
    """Why the trials of a sweep cannot be stopped early in this way, or None."""
    sweep, every = config.sweep, config.evaluate.every_epochs
    if not sweep.stops_early:
        return None
    chosen = "sweep.stop_dominated=true" if sweep.scheduler == "fifo" else f"sweep.scheduler={sweep.scheduler}"
    if every is None:
        return f"{chosen} compares accuracies while trials run; set evaluate.every_epochs (it is not set)"
    if sweep.scheduler != "pbt":
        return None
    if config.train.num_workers > 1:
        return f"sweep.scheduler=pbt needs train.num_workers=1 (it is {config.train.num_workers})"
    if sweep.is_sequential:
        return f"sweep.scheduler=pbt changes running points, from which sweep.searcher={sweep.searcher} cannot learn"
    if sweep.perturb_every_epochs % every:
        return (
            f"sweep.perturb_every_epochs must be a multiple of evaluate.every_epochs={every}; "
            f"got {sweep.perturb_every_epochs}"
        )
    if config.search_space and not any(key in space for space in config.search_space for key in sweep.mutated):
        return f"sweep.scheduler=pbt: none of sweep.mutated ({', '.join(sweep.mutated)}) is in the search space"
    return None


def _nonsense(config: Config) -> str | None:
    """Why these settings cannot go together, or None."""
    objective, source = config.objective, config.clusters.source
    name = objective.name
    if name == "pcl" and source != "kmeans":
        return f"objective.name=pcl learns from k-means prototypes; set clusters.source=kmeans (it is {source})"
    if name == "cluster-prediction" and source == "instance":
        return "objective.name=cluster-prediction would have one class per image; choose another clusters.source"
    if name == "cluster-prediction" and source == "kmeans" and config.recluster.warmup_epochs > 0:
        return (
            "objective.name=cluster-prediction has nothing to predict before the first clustering; set "
            f"recluster.warmup_epochs=0 (it is {config.recluster.warmup_epochs})"
        )
    for key, place in (("encoder.name", config.encoder.name), ("sweep.searcher", config.sweep.searcher)):
        if ":" in place and not config.allow_user_modules:
            return f"{key}={place} imports code; allow it with allow_user_modules=true"
    if config.train.sampler == "cluster" and source == "instance":
        return "train.sampler=cluster: instance clusters have no second member; use train.sampler=uniform"
    is_plain = name in ("cl-infonce", "infonce", "supcon")
    for key, value, is_set in (
        ("form", objective.form, objective.form != "multi-positive"),
        ("dual_head", objective.dual_head, objective.dual_head),
        ("negatives", objective.negatives, objective.negatives == "queue" and name != "pcl"),
    ):
        if is_set and not is_plain:
            return f"objective.{key}={value} belongs to cl-infonce; objective.name={name} has no such choice"
    chosen = [
        key
        for key, is_set in (
            ("objective.form=pair-sampled", objective.form == "pair-sampled"),
            ("objective.dual_head=true", objective.dual_head),
            ("objective.negatives=queue", objective.negatives == "queue" and name != "pcl"),
        )
        if is_set
    ]
    if len(chosen) > 1:
        return f"{' and '.join(chosen)} cannot be combined; choose one"
    if objective.form == "pair-sampled" and config.clusters.granularities is not None:
        return "objective.form=pair-sampled draws pairs of one granularity; leave out clusters.granularities"
    if objective.is_classification and config.clusters.granularities is not None:
        return f"objective.name={name} predicts the clusters of one granularity; leave out clusters.granularities"
    counts = config.clusters.counts
    if source == "kmeans" and name != "pcl" and list(counts) != sorted(counts, reverse=True):
        return f"clusters.granularities of kmeans are nested, so they must fall, as in [500, 50]; got {list(counts)}"
    return None


def known_keys(model: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """Every dotted key of the config that holds a value, such as `clusters.num_clusters`."""
    keys = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def check_key(key: str, where: str) -> None:
    """Raise UserError naming the nearest valid key unless `key` is a dotted key of the config."""
    keys = [name for name in known_keys() if name != "search_space"]
    if key not in keys:
        raise UserError(f"{where}: unknown key '{key}'.{_nearest(key, keys)}")


def _nearest(key: str, keys: list[str]) -> str:
    matches = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
    if not matches:
        leaf = key.rsplit(".", 1)[-1]
        matches = [name for name in keys if difflib.SequenceMatcher(None, name.rsplit(".", 1)[-1], leaf).ratio() > 0.7]
    return f" Did you mean '{matches[0]}'?" if matches else f" Valid sections: {', '.join(Config.model_fields)}."


def load_tree(path: Path) -> dict[str, Any]:
    """The YAML file as a plain tree, read with `safe_load`."""
    if not path.is_file():
        beside = sorted(str(name) for name in path.parent.glob("*.yaml")) if path.parent.is_dir() else []
        hint = f" Configs there: {', '.join(beside)}." if beside else ""
        raise UserError(f"{path}: no such config file.{hint}")
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UserError(f"{path}: expected a mapping of sections at the top; got a {type(tree).__name__}")
    return tree


def parse_assignment(text: str) -> tuple[str, Any]:
    """`clusters.num_clusters=50` as (key, value), the value read as YAML."""
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise UserError(f"--set {text}: expected KEY=VALUE, for example --set clusters.num_clusters=50")
    check_key(key, "--set")
    try:
        return key, _as_number(yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise UserError(f"--set {text}: the value is not readable as YAML") from error


def _as_number(value: Any) -> Any:
    """YAML 1.1 reads `1e-3` as text; users mean the number."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def with_overrides(tree: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """A copy of the tree with dotted keys set; the tree itself is left as it was."""
    result = dict(tree)
    for key, value in overrides.items():
        section, _, rest = key.partition(".")
        if rest:
            child = result.get(section)
            result[section] = with_overrides(child if isinstance(child, dict) else {}, {rest: value})
        else:
            result[section] = value
    return result


def parse_config(tree: dict[str, Any], where: str = "config") -> Config:
    """Validate a plain tree.

    Raises:
        UserError: one line per problem, each naming key, given value, expected range, and for an unknown key the
            nearest valid one.
    """
    try:
        return Config.model_validate(_numbers(tree))
    except ValidationError as error:
        problems = [_describe(problem) for problem in error.errors()]
        raise UserError("\n".join(f"{where}: {problem}" for problem in problems)) from None


def _numbers(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _numbers(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_numbers(value) for value in tree]
    if isinstance(tree, str) and "e" in tree.lower():
        return _as_number(tree)
    return tree


def _describe(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'.{_nearest(key, [*known_keys(), *Config.model_fields])}"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "value_error":
        return message if "." in message.split(" ", 1)[0] or not key else f"{key}.{message}"
    message = message.replace("Input should be", "must be").replace("Input must be", "must be")
    return f"{key} {message}; got {problem['input']!r}"


def load_config(path: Path, assignments: list[str] | None = None) -> Config:
    """Read, override and validate one experiment; raises UserError before anything is started."""
    overrides = dict(parse_assignment(text) for text in assignments or [])
    return parse_config(with_overrides(load_tree(path), overrides), str(path))


def override(config: Config, overrides: dict[str, Any], where: str = "config") -> Config:
    """A validated copy of the config with dotted keys replaced."""
    return parse_config(with_overrides(config.model_dump(mode="json"), overrides), where)


def dump_yaml(config: Config) -> str:
    """The resolved config, with every default written out, as YAML that `clray train` reads back; passwords hidden."""
    return yaml.safe_dump(hide_in_tree(config.model_dump(mode="json")), sort_keys=False)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one dict over dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
