"""How a run is trained, measured and recorded."""

from typing import Literal

from pydantic import model_validator

from clray.config.sections.values import (
    Flag,
    Momentum,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Section,
    Text,
    TwoOrMore,
)


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
    precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Of the model's products; `auto` is bfloat16 where the hardware has it. Losses are float32 always."""
    optimizer: Literal["sgd", "adamw", "lars"] = "adamw"
    """`sgd` is with Nesterov momentum; `lars` is for large batches."""
    learning_rate: PositiveFloat = 1e-3
    """At the end of the warm-up."""
    weight_decay: NonNegativeFloat = 1e-4
    """Of the optimizer."""
    momentum: Momentum = 0.9
    """For `sgd` (Nesterov) and `lars`."""
    warmup_epochs: NonNegativeInt = 0
    """Epochs of linear learning-rate warm-up, before the cosine decay to zero."""
    accumulate_batches: PositiveInt = 1
    """Batches per optimizer step; each contrasts its own images only."""
    sync_batch_norm: Flag = False
    """Batch-norm statistics over all workers, on GPUs."""
    compile: Flag = False
    """`torch.compile` the encoder."""
    num_workers: PositiveInt = 1
    """Training processes of a run, which share each batch."""
    cpus_per_worker: PositiveFloat = 1.0
    """Cores that Ray reserves for a worker."""
    gpus_per_worker: NonNegativeFloat = 0.0
    """GPUs that Ray reserves for a worker; with 0 it trains on the CPU."""
    checkpoint_every_epochs: PositiveInt = 1
    """Epochs from one checkpoint to the next; the last epoch always leaves one."""
    checkpoint_every_steps: PositiveInt | None = None
    """Further checkpoints within an epoch, every so many steps."""
    num_checkpoints: PositiveInt = 2
    """The newest so many are kept, beside the best by linear accuracy."""
    storage_path: Text | None = None
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
    """Epochs of the linear probe."""
    probe_learning_rate: PositiveFloat = 0.3
    """Of the linear probe, under SGD with cosine decay."""
    probe_batch_size: PositiveInt = 128
    """Of the linear probe."""
    labels_per_class: PositiveInt | None = None
    """Train the probe on this many labelled images of each class; all by default."""
    num_neighbors: PositiveInt = 20
    """Neighbours that vote on an image's class."""


class TrackingConfig(Section):
    """Where MLflow records runs, and what of them."""

    uri: Text | None = None
    """Address of an MLflow server or store; by default an SQLite store in the output folder."""
    experiment: Text = "clray"
    """Name of the MLflow experiment."""
    models: Literal["best", "all", "none"] = "best"
    """Which trials of a sweep are also kept as MLflow models, a few seconds each; a single run counts as the best."""
    pictures: Literal["all", "none"] = "all"
    """Clusters against labels, cluster sizes and a map of the embeddings, for each run."""
    system_metrics: Flag = False
    """Use of processor, memory and GPU on the machine of the command, on the sweep's or single run."""
    wait_seconds: NonNegativeFloat = 60.0
    """How long a finished command waits for a tracking server that cannot be reached; what is left can be uploaded
    later."""
