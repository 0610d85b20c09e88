"""The sections of the experiment's config: what can be set, its range and its default."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """A part of the config: immutable, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


PUBLISHED = ("zappos50k", "cub200", "wider_attribute", "imagenet100")
"""Data sets read from the files as their authors distribute them."""


class DataConfig(Section):
    """Which images, labels and attributes.

    `digits` is embedded (scikit-learn, 8x8). `parquet` and `csv` read the user's own tables; `cifar10`, `cifar100`,
    `fashion_mnist` and `imagefolder` come from torchvision; `zappos50k`, `cub200`, `wider_attribute` and `imagenet100`
    are read from the files as they are published.
    """

    name: Literal[
        "digits", "parquet", "csv", "cifar10", "cifar100", "fashion_mnist", "imagefolder", "zappos50k", "cub200",
        "wider_attribute", "imagenet100",
    ] = "digits"  # fmt: skip
    train_path: str | None = None
    """Parquet file, folder of them or pattern (`data/train-*.parquet`), metadata CSV, or folder of class folders with
    the training images; of a published data set its folder. In a folder, files or folders that are called `train` are
    for training, those called `test` (or else `validation`) for testing."""
    test_path: str | None = None
    """The same for the test images; without it, and where `train_path` holds none, `test_fraction` of the training
    images is held out."""
    image_root: str | None = None
    """Where the relative paths of a CSV start; the CSV's own folder by default."""
    attributes_path: str | None = None
    """For `imagefolder`: a CSV whose `path_column` names images below `train_path`, and whose other columns are their
    attributes."""
    classes_path: str | None = None
    """For `imagenet100`: another list of WordNet ids, one a line."""
    min_certainty: Annotated[int, Field(ge=1, le=4)] = 1
    """For `cub200`: an attribute is present where it was marked so with at least this certainty (4 is definitely)."""
    list_separator: str | None = None
    """Splits the text of a column into several values, such as `;` for `red;striped`."""
    num_bins: Annotated[int, Field(ge=2)] = 4
    """Continuous attributes are cut into so many bins of equal frequency."""
    image_column: str = "image"
    path_column: str = "path"
    label_column: str | None = None
    """Column of the downstream labels T; by default `label` in Parquet and `class` in CSV."""
    image_size: Annotated[int, Field(ge=4)] | None = None
    """Height and width in pixels after decoding; by default the size of the images, which must then agree."""
    max_pixel_value: PositiveFloat | None = None
    """White in grey images of more than 8 bits; by default the most that their mode holds: 65535 in 16 bits, 2147483647
    in 32-bit integers, 1 in floats. Brighter pixels are refused."""
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
    shuffle_row_groups: PositiveInt = 8
    """Of Parquet files larger than `memory_limit_mib`: images are shuffled within so many row groups at a time, drawn
    at random among those of the worker."""

    @property
    def needs_path(self) -> bool:
        return self.name in ("parquet", "csv", "imagefolder", *PUBLISHED)

    @model_validator(mode="after")
    def _has_path(self) -> "DataConfig":
        if self.needs_path and self.train_path is None:
            raise ValueError(f"train_path is required for data.name={self.name}; set data.train_path")
        if self.name in PUBLISHED and self.test_path is not None:
            raise ValueError(f"test_path: data.name={self.name} holds its test images itself; leave data.test_path out")
        if self.attributes_path is not None and self.name != "imagefolder":
            raise ValueError(f"attributes_path belongs to data.name=imagefolder (it is {self.name})")
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

    source: Literal["instance", "labels", "attributes", "column", "hierarchy", "synthetic", "clustering", "kmeans"] = (
        "kmeans"
    )
    num_clusters: Annotated[int, Field(ge=2)] = 10
    """K of k-means, or the granularity of a saved clustering."""
    granularities: tuple[NonNegativeInt, ...] | None = None
    """Several granularities in place of one, whose losses are averaged: values of K for `kmeans` and `clustering`,
    levels for `hierarchy`. Statistics are those of the first."""
    path: str | None = None
    """Folder of a clustering by `clray cluster`, whose row i is training image i, for `source: clustering`."""
    column: str | None = None
    """The column whose values are the clusters, for `source: column`; or the nodes of the tree, for `hierarchy`, which
    by default are the labels."""
    attribute_columns: tuple[str, ...] | None = None
    """Candidate columns for `source: attributes`; by default every column but image, path and label."""
    num_attributes: PositiveInt = 3
    """How many attributes, by falling entropy, form the clusters for `source: attributes`."""
    tree: str | None = None
    """Nested YAML mapping, or lines `parent child` as WordNet's is_a, for `source: hierarchy`."""
    level: NonNegativeInt = 1
    """Steps below the root at which the tree is cut, for `source: hierarchy`."""
    num_merged: Annotated[int, Field(ge=1)] | None = None
    """Clusters that the classes are merged into, for `source: synthetic`."""
    num_splits: PositiveInt = 1
    """Parts that each cluster is split into at random, for `source: synthetic`."""
    permuted_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the images among which cluster ids are shuffled, for `source: synthetic`."""

    @field_validator("path", "tree")
    @classmethod
    def _from_here(cls, value: str | None) -> str | None:
        """A relative path starts where the command runs, wherever its workers do."""
        return None if value is None else str(Path(value).absolute())

    @model_validator(mode="after")
    def _has_what_its_source_needs(self) -> "ClustersConfig":
        for source, key in (("column", "column"), ("clustering", "path"), ("hierarchy", "tree")):
            if self.source == source and getattr(self, key) is None:
                raise ValueError(f"{key} is required for clusters.source={source}; set clusters.{key}")
        if self.granularities is not None:
            if self.source not in ("kmeans", "clustering", "hierarchy"):
                raise ValueError(
                    f"granularities are values of K (kmeans, clustering) or levels (hierarchy), which "
                    f"clusters.source={self.source} does not have; leave them out"
                )
            if not self.granularities or len(set(self.granularities)) < len(self.granularities):
                raise ValueError(f"granularities must be one or more different numbers; got {self.granularities}")
            if self.source != "hierarchy" and min(self.granularities) < 2:
                raise ValueError(f"granularities are numbers of clusters, at least 2; got {min(self.granularities)}")
        return self

    @property
    def counts(self) -> tuple[int, ...]:
        """K of each granularity of `kmeans` and `clustering`."""
        return self.granularities or (self.num_clusters,)

    @property
    def levels(self) -> tuple[int, ...]:
        """Level of each granularity of `hierarchy`."""
        return self.granularities or (self.level,)


class ReclusterConfig(Section):
    """When k-means clusters are computed anew. Before the first time every image is its own cluster."""

    every_epochs: PositiveInt = 1
    every_steps: PositiveInt | None = None
    """In place of `every_epochs`."""
    warmup_epochs: NonNegativeInt = 1
    """Epochs trained with instance clusters before the first clustering."""
    embeddings: Literal["bank", "pass"] = "bank"
    """What is clustered: the embeddings that training computed last for each image, at no further cost, or those of a
    pass over all images without augmentation (the authors' protocol)."""
    bank_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Share of an image's old embedding that the bank keeps when a new one comes: it averages the noise of the views,
    and with it come older weights."""
    mode: Literal["sync", "async"] = "sync"
    """`async` trains on while clusters are computed and takes them over at the first step at which all workers have
    them; the same seed then gives the same result only up to when that is."""


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
    node_labels: dict[str, str] = {}
    """Ray labels of the nodes that hold the shards, such as `{pool: cpu}` or `{ray.io/accelerator-type: "!H100"}`;
    by default any."""


ENCODERS = ("small_cnn", "resnet18", "resnet34", "resnet50", "vit_s16")


class EncoderConfig(Section):
    """The backbone whose output h is the representation."""

    name: str = "small_cnn"
    """`small_cnn`, `resnet18`, `resnet34`, `resnet50`, `vit_s16`, or with `allow_user_modules` the user's own
    `module:function`, which is called with the number of channels and returns a module from images to h, and the
    dimension of h."""
    width: PositiveInt = 32
    """Channels of the first layer of `small_cnn`."""
    small_image_stem: bool = True
    """For ResNets: a 3x3 first convolution without pooling, as usual for images up to 64 pixels."""

    image_size: Annotated[int, Field(ge=16, multiple_of=16)] = 224
    """For `vit_s16`, which has a position for each patch of 16x16 pixels: height and width of the images."""

    @model_validator(mode="after")
    def _is_known(self) -> "EncoderConfig":
        if self.name not in ENCODERS and ":" not in self.name:
            known = ", ".join(ENCODERS)
            raise ValueError(f"name must be one of {known}, or module:function of your own; got {self.name!r}")
        return self


class HeadConfig(Section):
    """The projection head: a two-layer perceptron from h to the embedding z."""

    hidden_dim: PositiveInt = 128
    embedding_dim: Annotated[int, Field(ge=2)] = 64


class ObjectiveConfig(Section):
    """What is trained. `infonce`, `supcon` and `supervised` are settings of others and choose `clusters.source`."""

    name: Literal["cl-infonce", "infonce", "supcon", "pcl", "cluster-prediction", "supervised"] = "cl-infonce"
    form: Literal["multi-positive", "pair-sampled"] = "multi-positive"
    """Of `cl-infonce`: all views of a batch with the anchor's cluster, as the authors' code trains, or pairs drawn from
    one cluster, as in the paper's equation."""
    dual_head: bool = False
    """A second projection head under InfoNCE, whose loss is added (the authors' ImageNet-100 variant)."""
    negatives: Literal["batch", "queue"] = "batch"
    """`queue`: keys of a momentum encoder from this batch and those before it (MoCo). `pcl` always uses it."""
    queue_size: PositiveInt = 4096
    """Keys kept, over all workers."""
    key_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Of the momentum encoder; the MoCo authors take 0.999 for runs of several hundred thousand steps."""
    temperature: PositiveFloat = 0.2
    base_temperature: PositiveFloat | None = None
    """With a number b the loss is multiplied by temperature/b (0.07 in the authors' code). Without it the gradient
    grows as 1/temperature, so that under SGD a sweep over temperature also sweeps the learning rate."""

    @property
    def uses_queue(self) -> bool:
        return self.negatives == "queue" or self.name == "pcl"

    @property
    def is_classification(self) -> bool:
        return self.name in ("cluster-prediction", "supervised")


OBJECTIVE_SOURCES = {"infonce": "instance", "supcon": "labels", "supervised": "labels"}
"""The cluster source that an objective stands for."""


class TrainConfig(Section):
    """Schedule, optimizer and the resources of one run."""

    num_epochs: PositiveInt = 10
    global_batch_size: Annotated[int, Field(ge=2)] = 128
    """Images per step over all workers."""
    sampler: Literal["uniform", "cluster"] = "uniform"
    """`cluster`: images of one cluster come `members_per_cluster` at a time, so that fine clusters yield positives."""
    members_per_cluster: Annotated[int, Field(ge=2)] = 4
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the model's products; `auto` is bfloat16 where the hardware has it. Losses are float32 always."""
    optimizer: Literal["sgd", "adamw", "lars"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 1e-4
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """For `sgd` (Nesterov) and `lars`."""
    warmup_epochs: NonNegativeInt = 0
    """Epochs of linear learning-rate warm-up, before the cosine decay to zero."""
    accumulate_batches: PositiveInt = 1
    """Batches per optimizer step; each contrasts its own images only."""
    sync_batch_norm: bool = False
    """Batch-norm statistics over all workers, on GPUs."""
    compile: bool = False
    """`torch.compile` the encoder."""
    num_workers: PositiveInt = 1
    cpus_per_worker: PositiveFloat = 1.0
    gpus_per_worker: NonNegativeFloat = 0.0
    checkpoint_every_epochs: PositiveInt = 1
    checkpoint_every_steps: PositiveInt | None = None
    """Further checkpoints within an epoch, every so many steps."""
    num_checkpoints: PositiveInt = 2
    """The newest so many are kept, beside the best by linear accuracy."""
    storage_path: str | None = None
    """Where checkpoints and results go besides the output folder, and come from where that is lost: a folder that all
    nodes see, or `s3://bucket/runs` and the like."""
    timeout_seconds: PositiveFloat = 600.0
    """How long the workers of a group wait for one that no longer answers."""
    max_failures: NonNegativeInt = 1
    """Restarts of a failed worker group (several workers), each from the last checkpoint."""

    @model_validator(mode="after")
    def _checkpoints_after_optimizer_steps(self) -> "TrainConfig":
        if self.checkpoint_every_steps is not None and self.checkpoint_every_steps % self.accumulate_batches:
            raise ValueError(
                f"checkpoint_every_steps must be a multiple of accumulate_batches={self.accumulate_batches}; "
                f"got {self.checkpoint_every_steps}"
            )
        return self


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
    """Where MLflow records runs, by default an SQLite store in the output folder, and what of them."""

    uri: str | None = None
    experiment: str = "clray"
    models: Literal["best", "all", "none"] = "best"
    """Which trials of a sweep are also kept as MLflow models, a few seconds each; a single run counts as the best."""
    pictures: Literal["all", "none"] = "all"
    """Clusters against labels, cluster sizes and a map of the embeddings, for each run."""
    system_metrics: bool = False
    """Use of processor, memory and GPU on the machine of the command, on the sweep's or single run."""
    wait_seconds: NonNegativeFloat = 60.0
    """How long a finished command waits for a tracking server that is away; what is left can be uploaded later."""


SEARCHERS = ("grid", "random", "optuna")


class SweepConfig(Section):
    """How the search space is walked."""

    searcher: str = "grid"
    """`grid` takes every combination of the grids, and draws the other domains `num_samples` times; `random` draws
    everything; `optuna` suggests points by TPE; `module:Class` is any searcher of Ray Tune (`allow_user_modules`)."""
    searcher_options: dict[str, Any] = {}
    """Further arguments of a `module:Class`."""
    num_samples: PositiveInt = 1
    """How many points are drawn; for `grid`, how often, as each draw repeats the grids."""
    seeds: PositiveInt = 1
    """Each point is run with so many seeds, `seed` and those after it."""
    scheduler: Literal["fifo", "asha", "median", "pbt"] = "fifo"
    """Which trials are stopped early: none, those behind the best 1/`reduction_factor` at an epoch (ASHA), those below
    the median; or population-based training, which changes `mutated` keys of the trials that lag behind."""
    grace_epochs: PositiveInt = 1
    """No trial is stopped before."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """Of ASHA: 1 of so many trials goes on to so many times the epochs."""
    perturb_every_epochs: PositiveInt = 5
    """Of population-based training."""
    mutated: tuple[str, ...] = ("objective.temperature", "train.learning_rate")
    """Of population-based training: the keys of the search space that may change while a trial runs."""
    stop_dominated: bool = False
    """Stop a trial whose clusters are dominated: at the same epoch another trial's have higher I(Z;T) and lower H(Z|T),
    and its accuracy is higher."""
    minimize_cost: bool = False
    """With `optuna`: search for high accuracy and few seconds at once."""
    max_failures: NonNegativeInt = 0
    """How often a failed trial is tried again, from its last checkpoint."""
    fail_fast: bool = False
    """End the sweep at the first trial that fails for good."""
    max_concurrent_trials: PositiveInt | None = None
    """By default as many as the cluster's resources allow."""
    metric: Literal["eval/linear_accuracy", "eval/knn_accuracy"] = "eval/linear_accuracy"
    """Ranks the trials and colours the picture."""

    @model_validator(mode="after")
    def _is_known(self) -> "SweepConfig":
        if self.searcher not in SEARCHERS and ":" not in self.searcher:
            near = difflib.get_close_matches(self.searcher, SEARCHERS, n=1, cutoff=0.4)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"searcher must be one of {', '.join(SEARCHERS)}, or module:Class; got {self.searcher!r}{hint}"
            )
        if self.minimize_cost and self.searcher != "optuna":
            raise ValueError(f"minimize_cost needs searcher optuna, which knows several goals; got {self.searcher!r}")
        return self

    @property
    def is_sequential(self) -> bool:
        """Whether the points depend on the results of those before."""
        return self.searcher not in ("grid", "random")

    @property
    def stops_early(self) -> bool:
        return self.scheduler != "fifo" or self.stop_dominated
