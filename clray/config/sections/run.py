"""How a run is trained, measured and recorded."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from clray.config.sections.data import metric_suffix
from clray.config.sections.values import (
    LARGEST,
    AutoOrFlag,
    AutoOrNumber,
    Flag,
    Momentum,
    NonNegativeFloat,
    NonNegativeInt,
    Number,
    PositiveFloat,
    PositiveInt,
    RegistryName,
    Section,
    Text,
    TwoOrMore,
)

_COUNT = {"type": "integer", "minimum": 1, "maximum": 2147483647}
NumWorkers = Annotated[
    PositiveInt,
    WithJsonSchema({"anyOf": [_COUNT, {"type": "array", "items": _COUNT, "minItems": 2, "maxItems": 2}]}),
]
"""A number, or a range as `TrainConfig` takes it."""


class TrainConfig(Section):
    """Schedule, optimizer and the resources of one run."""

    num_epochs: PositiveInt = 10
    """Passes over the training images."""
    global_batch_size: TwoOrMore = 128
    """Images per step over all workers."""
    sampler: Literal["uniform", "cluster"] = "uniform"
    """`cluster`: images of one cluster come `members_per_cluster` at a time, so that fine clusters yield positives."""
    members_per_cluster: TwoOrMore = 4
    """Images of a cluster that `sampler: cluster` puts into a batch together."""
    precision: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Of the model's products. `auto` is bfloat16 on a GPU that has it, float16 on others, bfloat16 on a CPU where a
    timed step of this encoder and batch is faster so; else float32. With float16 gradients are scaled, and a step whose
    gradients overflow is left out. Losses are float32 always."""
    float32_matmul_precision: Literal["highest", "high"] = "high"
    """On a GPU, of what a step still multiplies in float32: `high` rounds the factors to TF32, which is several times
    faster; `highest` does not. Evaluation and k-means multiply at full precision."""
    deterministic: Flag = False
    """Give the same weights for the same seed on a GPU too, on the same kind and with the same versions, a little
    slower; a CPU does anyway. An operation without a deterministic form ends the run. The shards of k-means follow:
    FAISS then searches on CPUs alone."""
    optimizer: Literal["sgd", "adamw", "lars"] = "adamw"
    """`lars` is for large batches; it leaves biases and norms out of adaptation and decay."""
    learning_rate: PositiveFloat = 1e-3
    """At the end of the warm-up."""
    weight_decay: NonNegativeFloat = 1e-4
    """Of the optimizer."""
    decay_biases: Flag | None = None
    """Whether `weight_decay` also shrinks biases and the parameters of norms; by default only where training starts
    from random weights."""
    momentum: Momentum = 0.9
    """For `sgd` and `lars`."""
    nesterov: Flag = True
    """Nesterov's momentum for `sgd`, or else the plain one."""
    warmup_epochs: NonNegativeInt = 0
    """Epochs of linear learning-rate warm-up, before the cosine decay to zero."""
    learning_rate_warmup_fraction: Annotated[float, Field(ge=0, lt=1), Number] | None = None
    """In place of `warmup_epochs`: the share of all steps that warm the learning rate up."""
    accumulate_batches: PositiveInt = 1
    """Batches per optimizer step; each contrasts its own images only."""
    sync_batch_norm: Flag = False
    """Batch-norm statistics over all workers, on GPUs."""
    compile: AutoOrFlag = False
    """`torch.compile` views, encoder and loss; on a GPU the encoder's calls are a CUDA graph. `auto` does so on a GPU
    in runs of 10,000 steps or more, and on a CPU where what it gains, timed once for a machine and encoder, pays for
    the compilation within the run. Without a compiler, or where a part cannot be compiled, the run goes on, with a
    warning."""
    num_workers: NumWorkers = 1
    """Training processes of a run, which share each batch. A range such as `[2, 8]` is `min_workers: 2` with
    `num_workers: 8`."""
    min_workers: PositiveInt | None = None
    """With so few of `num_workers` a run starts, and goes on after the loss of a node; it grows again where there is
    room. A step then has `global_batch_size` images less the rest that its workers cannot share evenly."""
    cpus_per_worker: PositiveFloat = 1.0
    """Cores that Ray reserves for a worker."""
    gpus_per_worker: AutoOrNumber = "auto"
    """GPUs of a worker: 1, a fraction for small trials that share one, or 0 to train on the CPU. `auto` is 1 where each
    worker of the run finds one, else 0."""
    checkpoint_every_epochs: PositiveInt = 1
    """Epochs from one checkpoint to the next; the last epoch always leaves one."""
    checkpoint_every_steps: PositiveInt | None = None
    """Further checkpoints within an epoch, every so many steps."""
    num_checkpoints: PositiveInt = 2
    """The newest so many are kept, beside the best by `sweep.metric`."""
    storage_path: Text | None = None
    """Where checkpoints and results go besides the output folder, and come from where that is lost: a folder that all
    nodes see, or `s3://bucket/runs` and the like."""
    timeout_seconds: PositiveFloat = 600.0
    """How long the workers of a group wait for one that no longer answers."""
    max_failures: NonNegativeInt = 1
    """Restarts of a failed worker group (several workers), each from the last checkpoint."""

    @model_validator(mode="before")
    @classmethod
    def _takes_a_range(cls, tree: Any) -> Any:
        """`num_workers: [2, 8]` as the two settings that it stands for."""
        workers = tree.get("num_workers") if isinstance(tree, dict) else None
        if not isinstance(workers, list | tuple):
            return tree
        if len(workers) != 2 or tree.get("min_workers") is not None:
            raise ValueError(
                f"train.num_workers={list(workers)}: expected a number, or the fewest and the most such as [2, 8], and "
                "then no train.min_workers"
            )
        return {**tree, "min_workers": workers[0], "num_workers": workers[1]}

    @property
    def group_sizes(self) -> range:
        """The numbers of workers that the run may have."""
        return range(self.min_workers or self.num_workers, self.num_workers + 1)

    @model_validator(mode="after")
    def _checkpoints_after_optimizer_steps(self) -> "TrainConfig":
        if self.checkpoint_every_steps is not None and self.checkpoint_every_steps % self.accumulate_batches:
            raise ValueError(
                f"checkpoint_every_steps must be a multiple of accumulate_batches={self.accumulate_batches}; "
                f"got {self.checkpoint_every_steps}"
            )
        return self

    @model_validator(mode="after")
    def _means_one_warmup(self) -> "TrainConfig":
        if self.learning_rate_warmup_fraction is not None and self.warmup_epochs:
            raise ValueError(
                f"train.learning_rate_warmup_fraction={self.learning_rate_warmup_fraction} and "
                f"train.warmup_epochs={self.warmup_epochs} both say how long the learning rate warms up; leave one out"
            )
        return self

    @model_validator(mode="after")
    def _decays_what_its_optimizer_decays(self) -> "TrainConfig":
        if self.optimizer == "lars" and self.decay_biases:
            raise ValueError(
                "train.decay_biases=true: train.optimizer=lars never shrinks biases and norms; leave it out"
            )
        return self

    def num_warmup_steps(self, num_steps: int, steps_per_epoch: int) -> int:
        """Of `num_steps` those that warm the learning rate up."""
        if self.learning_rate_warmup_fraction is not None:
            return round(self.learning_rate_warmup_fraction * num_steps)
        return self.warmup_epochs * steps_per_epoch


def _label_budgets(value: Any) -> Any:
    """In one message, where a union would give one for each of its members."""
    listed = value if isinstance(value, list | tuple) and value else [value]
    is_list = listed is value
    for each in listed:
        is_count = isinstance(each, int) and not isinstance(each, bool) and 1 <= each <= LARGEST
        if not (is_count or (each == "all" if is_list else each is None)):
            raise PydanticCustomError(
                "not_budgets", "must be a number of labels, at least 1, or a list of such as [1, 5, all]"
            )
    return value


PROBE_KEYS = ("probe_epochs", "probe_learning_rate", "probe_batch_size")
"""Of the probe by stochastic gradient descent that older configs set up."""


class EvaluateConfig(Section):
    """Linear probe and k-nearest neighbours on the frozen representation h."""

    every_epochs: PositiveInt | None = None
    """Evaluate after every so many epochs; always after the last one."""
    labels_per_class: Annotated[
        PositiveInt | tuple[PositiveInt | Literal["all"], ...] | None, BeforeValidator(_label_budgets)
    ] = None
    """Train the probe on this many labelled images of each class; all by default. Of a list, such as `[1, 5, 10, all]`,
    each is measured, and `eval/linear_accuracy` is that of the largest."""
    label_draws: PositiveInt = 5
    """So many times the images of a number of labels are drawn; what is reported is the mean, beside the spread."""
    probe_epochs: PositiveInt | None = Field(default=None, exclude=True)
    """Ignored: the probe has no epochs, it is solved to its optimum."""
    probe_learning_rate: PositiveFloat | None = Field(default=None, exclude=True)
    """Ignored, as `probe_epochs`."""
    probe_batch_size: PositiveInt | None = Field(default=None, exclude=True)
    """Ignored, as `probe_epochs`."""
    num_neighbors: PositiveInt = 20
    """Neighbours that vote on an image's class."""
    targets: tuple[Text, ...] = ()
    """Attributes that clusters, probe and neighbours are held against too, such as `[material]`; their measures end in
    their name (`eval/linear_accuracy/material`). Where there are no labels the first takes the place of these."""

    @model_validator(mode="after")
    def _has_each_target_once(self) -> "EvaluateConfig":
        suffixes = [metric_suffix(name) for name in self.targets]
        repeated = [name for name, suffix in zip(self.targets, suffixes, strict=True) if suffixes.count(suffix) > 1]
        if repeated:
            raise ValueError(
                "targets must name each attribute once, and by names of measures that differ; got "
                f"{', '.join(repeated)}"
            )
        return self

    @property
    def budgets(self) -> tuple[int | None, ...]:
        """Labels of each class that a probe is trained on, None for all; each once."""
        given = self.labels_per_class
        listed = given if isinstance(given, tuple) else (given,)
        return tuple(dict.fromkeys(None if each == "all" else each for each in listed))

    @property
    def ignored(self) -> tuple[str, ...]:
        """Keys that were set and no longer count."""
        return tuple(f"evaluate.{name}" for name in PROBE_KEYS if getattr(self, name) is not None)


class TrackingConfig(Section):
    """Where MLflow records runs, and what of them."""

    uri: Text | None = None
    """Address of an MLflow server or store; by default that of MLFLOW_TRACKING_URI, or else an SQLite store in the
    output folder."""
    experiment: Text | None = None
    """Name of the MLflow experiment; by default that of MLFLOW_EXPERIMENT_NAME, or else `clray`."""
    register_as: RegistryName | None = None
    """Register the best encoder under this name in MLflow's model registry, as its newest version, and give that the
    alias `champion`."""
    models: Literal["best", "all", "none"] = "best"
    """Which trials of a sweep are also kept as MLflow models, a few seconds each; a single run counts as the best."""
    pictures: Literal["all", "none"] = "all"
    """Clusters against labels, cluster sizes and a map of the embeddings, for each run."""
    pages: Literal["best", "none"] = "best"
    """`clusters.html`, a page of the clusters of a sweep's best trial; `clray look` makes one of any run."""
    system_metrics: Flag = False
    """Use of processor, memory and GPU on the machine of the command, on the sweep's or single run."""
    wait_seconds: NonNegativeFloat = 60.0
    """How long a finished command waits for a tracking server that cannot be reached; what is left can be uploaded
    later."""
