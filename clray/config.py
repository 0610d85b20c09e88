"""The experiment as one pydantic tree: YAML, dotted overrides, validation and nearest-key hints.

Imports neither torch nor Ray nor MLflow, so that a refused config answers at once.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator


class UserError(ValueError):
    """Something the user can put right: bad config, missing file, unreadable data. The CLI exits with code 2."""


PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A part of the config: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class DataConfig(Section):
    """Which images, labels and attributes.

    `digits` is embedded (scikit-learn, 8x8). `parquet` and `csv` read the user's own tables; `cifar10`, `cifar100`,
    `fashion_mnist` and `imagefolder` come from torchvision.
    """

    name: Literal["digits", "parquet", "csv", "cifar10", "cifar100", "fashion_mnist", "imagefolder"] = "digits"
    train_path: str | None = None
    """Parquet file, metadata CSV, or folder of class folders with the training images."""
    test_path: str | None = None
    """The same for the test images; without it, `test_fraction` of the training images is held out."""
    image_root: str | None = None
    """Where the relative paths of a CSV start; the CSV's own folder by default."""
    image_column: str = "image"
    path_column: str = "path"
    label_column: str | None = None
    """Column of the downstream labels T; by default `label` in Parquet and `class` in CSV."""
    image_size: Annotated[int, Field(ge=4)] | None = None
    """Height and width in pixels after decoding; by default the size of the images, which must then agree."""
    test_fraction: Fraction = 0.25
    split_seed: NonNegativeInt = 0
    max_train_images: PositiveInt | None = None
    """Use only a random subset of this many training images."""
    max_test_images: PositiveInt | None = None
    on_bad_image: Literal["error", "skip"] = "error"
    download: bool = False
    memory_limit_mib: PositiveInt = 4096
    """Decoded images up to this size are held in memory and shared; larger sets are decoded while training."""
    num_decoders: NonNegativeInt = 2
    """DataLoader processes per worker for data that are decoded while training."""

    @property
    def needs_path(self) -> bool:
        return self.name in ("parquet", "csv", "imagefolder")

    @model_validator(mode="after")
    def _has_path(self) -> "DataConfig":
        if self.needs_path and self.train_path is None:
            raise ValueError(f"train_path is required for data.name={self.name}; set data.train_path")
        return self


class AugmentationConfig(Section):
    """SimCLR's random views; `digits` leaves out flips and colour, which change what a digit is."""

    name: Literal["simclr", "digits"] = "simclr"
    min_crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Smallest area of a random crop, as a share of the image."""
    jitter_strength: NonNegativeFloat = 0.4
    """Brightness, contrast and saturation jitter (hue takes a quarter of it)."""
    jitter_probability: Annotated[float, Field(ge=0, le=1)] = 0.8
    grayscale_probability: Annotated[float, Field(ge=0, le=1)] = 0.2


class ClustersConfig(Section):
    """Where the cluster ids Z come from: `instance` is InfoNCE, `labels` is SupCon, the others are Cl-InfoNCE."""

    source: Literal["instance", "labels", "attributes", "column", "clustering", "kmeans"] = "kmeans"
    num_clusters: Annotated[int, Field(ge=2)] = 10
    """K of k-means, or the granularity of a saved clustering."""
    path: str | None = None
    """Folder of a clustering by `clray cluster`, whose row i is training image i, for `source: clustering`."""
    column: str | None = None
    """The column whose values are the clusters, for `source: column`."""
    attribute_columns: tuple[str, ...] | None = None
    """Candidate columns for `source: attributes`; by default every column but image, path and label."""
    num_attributes: PositiveInt = 3
    """How many attributes, by falling entropy, form the clusters for `source: attributes`."""

    @model_validator(mode="after")
    def _has_what_its_source_needs(self) -> "ClustersConfig":
        if self.source == "column" and self.column is None:
            raise ValueError("column is required for clusters.source=column; set clusters.column")
        if self.source == "clustering" and self.path is None:
            raise ValueError("path is required for clusters.source=clustering; set clusters.path")
        return self


class ReclusterConfig(Section):
    """When k-means clusters are computed anew. Before the first time every image is its own cluster."""

    every_epochs: PositiveInt = 1
    warmup_epochs: NonNegativeInt = 1
    """Epochs trained with instance clusters before the first clustering."""


class KMeansConfig(Section):
    """The distributed FAISS k-means: Ray actors that each search one shard of the embeddings."""

    num_shards: PositiveInt = 2
    num_iterations: PositiveInt = 20
    num_redos: PositiveInt = 1
    """Starts of a cold clustering, of which the best is kept."""
    init: Literal["random", "kmeans++", "afk-mc2"] = "random"
    spherical: bool = False
    tolerance: NonNegativeFloat = 1e-6
    """Relative fall of the inertia at which to stop before `num_iterations`."""
    warm_start: bool = True
    """Start from the centroids of the previous clustering, so that a cluster keeps its id."""
    num_refresh_iterations: PositiveInt = 10
    """Iterations of a warm start."""
    cpus_per_shard: NonNegativeFloat = 0.1
    gpus_per_shard: NonNegativeFloat = 0.0


class EncoderConfig(Section):
    """The backbone whose output h is the representation."""

    name: Literal["small_cnn", "resnet18", "resnet34", "resnet50"] = "small_cnn"
    width: PositiveInt = 32
    """Channels of the first layer of `small_cnn`."""
    small_image_stem: bool = True
    """For ResNets: a 3x3 first convolution without pooling, as usual for images up to 64 pixels."""


class HeadConfig(Section):
    """The projection head: a two-layer perceptron from h to the embedding z."""

    hidden_dim: PositiveInt = 128
    embedding_dim: Annotated[int, Field(ge=2)] = 64


class ObjectiveConfig(Section):
    """Multi-positive Cl-InfoNCE."""

    temperature: PositiveFloat = 0.2
    base_temperature: PositiveFloat | None = None
    """With a number b the loss is multiplied by temperature/b (0.07 in the authors' code). Without it the gradient
    grows as 1/temperature, so that under SGD a sweep over temperature also sweeps the learning rate."""


class TrainConfig(Section):
    """Schedule, optimizer and the resources of one run."""

    num_epochs: PositiveInt = 10
    global_batch_size: Annotated[int, Field(ge=2)] = 128
    """Images per step over all workers."""
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """For `sgd` (Nesterov)."""
    warmup_epochs: NonNegativeInt = 0
    """Epochs of linear learning-rate warm-up, before the cosine decay to zero."""
    num_workers: PositiveInt = 1
    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: NonNegativeFloat = 0.0
    checkpoint_every_epochs: PositiveInt = 1
    max_failures: NonNegativeInt = 1
    """Restarts of a failed worker group (several workers), each from the last checkpoint."""


class EvaluateConfig(Section):
    """Linear probe and k-nearest neighbours on the frozen representation h."""

    every_epochs: PositiveInt | None = None
    """Evaluate after every so many epochs; always after the last one."""
    probe_epochs: PositiveInt = 100
    probe_learning_rate: PositiveFloat = 0.3
    probe_batch_size: PositiveInt = 128
    labels_per_class: PositiveInt | None = None
    """Train the probe on this many labelled images of each class; all by default."""
    num_neighbors: PositiveInt = 20


class TrackingConfig(Section):
    """Where MLflow records runs; by default an SQLite store in the output folder."""

    uri: str | None = None
    experiment: str = "clray"


class SweepConfig(Section):
    """How the search space is walked."""

    num_samples: PositiveInt = 1
    """How often the search space is drawn; each draw repeats the grids."""
    max_concurrent_trials: PositiveInt | None = None
    """By default as many as the cluster's resources allow."""
    metric: Literal["eval/linear_accuracy", "eval/knn_accuracy"] = "eval/linear_accuracy"
    """Ranks the trials and colours the picture."""


class Config(Section):
    """One experiment. `search_space` maps dotted keys to Tune domains; a list of such maps is searched one by one."""

    seed: NonNegativeInt = 0
    output: str = "outputs"
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
    """The resolved config, with every default written out, as YAML that `clray train` reads back."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as one dict over dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
