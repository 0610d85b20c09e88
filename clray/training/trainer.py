"""One run: restore, then for each epoch train with fresh clusters, evaluate, report."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.known import known_clusters
from clray.config import Config
from clray.data.augmentation import build_augmentation
from clray.data.images.port import Batch
from clray.data.loaders import num_steps, shard_indices, training_batches
from clray.data.samples import Dataset, Samples
from clray.data.sampling import cluster_order, draw_partners
from clray.errors import UserError
from clray.seeding import derive_seed
from clray.training.accuracy import evaluate
from clray.training.bank import merge_banks
from clray.training.checkpoint import Checkpoint
from clray.training.cluster_metrics import ClusterMetrics
from clray.training.epoch import EpochMeter, mean_state, train_steps
from clray.training.metrics import Metrics
from clray.training.recluster import Reclusterer, ids_on_device
from clray.training.start import check_start
from clray.training.state import create_state, freeze_encoder, share_buffers, with_pixels, wrap_for_workers
from clray.training.workers.port import Session, gather, gather_on_first


def check_against_data(config: Config, data: Dataset) -> tuple[str, ...]:
    """What the user should know of a run's start; comes before Ray starts.

    Raises:
        UserError: settings that these data rule out, or weights that do not fit.
    """
    num_images = len(data.train)
    most = max(config.clusters.counts)
    if config.clusters.source == "kmeans" and most > num_images:
        raise UserError(
            f"clusters.num_clusters must be at most {num_images} (the training images); got {most}. Lower it in the "
            f"config or with --set clusters.num_clusters={num_images}"
        )
    if num_images < 2 * config.train.num_workers:
        raise UserError(
            f"train.num_workers must leave each worker at least 2 of the {num_images} training images; "
            f"got {config.train.num_workers}"
        )
    if data.train.images.is_sequential:
        _check_streamed(config, data)
    _check_image_size(config, data)
    notes = check_start(config, data)
    for assignment in start_clusters(config, data):
        if config.objective.is_classification and assignment.num_clusters < 2:
            raise UserError(
                f"objective.name={config.objective.name}: all {num_images} training images are in one cluster, so that "
                "there is nothing to predict; choose other clusters"
            )
    return notes


def _check_image_size(config: Config, data: Dataset) -> None:
    """A vision transformer has as many positions as its images have patches."""
    height, width = _size_of(data.train)
    wanted = config.encoder.image_size or 224
    is_scaled = config.encoder.weights is not None or config.encoder.mean is not None
    if config.encoder.name == "vit_s16" and not is_scaled and (height, width) != (wanted, wanted):
        raise UserError(
            f"encoder.image_size={wanted}, but the images are {width}x{height} pixels; set data.image_size and "
            "encoder.image_size to the same multiple of 16"
        )


def _check_streamed(config: Config, data: Dataset) -> None:
    for key, value, is_set in (
        ("train.sampler", config.train.sampler, config.train.sampler == "cluster"),
        ("objective.form", config.objective.form, config.objective.form == "pair-sampled"),
    ):
        if is_set:
            raise UserError(
                f"{key}={value} draws images from anywhere in the data, and these are read from their files by row "
                "groups; raise data.memory_limit_mib if there is memory, or choose another"
            )
    smallest = min(map(len, shard_indices(data.train, config.train.num_workers)))
    if 2 * smallest * config.train.num_workers < len(data.train):
        raise UserError(
            f"train.num_workers={config.train.num_workers}: a worker reads whole row groups, and one would have only "
            f"{smallest} of {len(data.train)} images; write smaller row groups, or use fewer workers"
        )


def start_clusters(config: Config, data: Dataset) -> tuple[ClusterAssignment, ...]:
    """The assignments the run starts with."""
    train = data.train
    return known_clusters(
        config.clusters, labels=train.labels, columns=train.columns, names=data.names, seed=config.seed
    )


def run(config: Config, data: Dataset, session: Session) -> Metrics:
    """Train to the end, from the session's checkpoint where it has one; returns the last epoch's metrics."""
    this, metrics = _Run(config, data, session), Metrics()
    while this.state.epoch < config.train.num_epochs:
        metrics = this.train_epoch()
        is_last, every = this.state.epoch == config.train.num_epochs, config.evaluate.every_epochs
        if is_last or (every is not None and this.state.epoch % every == 0):
            metrics |= evaluate(config, this.state.model, data, session, with_test=is_last)
        # An evaluated epoch may be the best, and the best is kept; at the end of the warm-up other runs may start.
        is_warm = config.clusters.source == "kmeans" and this.state.epoch == config.recluster.warmup_epochs
        due = "eval/seconds" in metrics or is_warm or this.state.epoch % config.train.checkpoint_every_epochs == 0
        session.report(metrics, this.checkpoint() if due else None)
    return metrics


class _Run:
    """A run on one worker, between its steps."""

    def __init__(self, config: Config, data: Dataset, session: Session) -> None:
        """Starts afresh, or where the session's checkpoint stands."""
        config = with_pixels(config)
        self.config, self.data, self.session = config, data, session
        self.shards = shard_indices(data.train, session.world_size)
        self.state = create_state(
            config,
            num_channels=data.num_channels,
            steps_per_epoch=num_steps(self.shards, min(config.train.global_batch_size, len(data.train))),
            assignments=start_clusters(config, data),
            device=session.device,
            shard=self.shards[session.rank],
            world_size=session.world_size,
        )
        self.reclusterer = Reclusterer(config, data, self.state, session)
        self.cluster_metrics = ClusterMetrics(data.train.labels, session)
        self.meter = EpochMeter()
        session.restore(self._load)
        self.model = self._wrapped()
        self.augmentation = build_augmentation(config.augmentation, _size_of(data.train)[1], data.num_channels)
        self.cluster_ids = ids_on_device(self.state.assignments, session.device)

    def train_epoch(self) -> Metrics:
        """Train what is left of the epoch; returns its metrics."""
        state = self.state
        self._freeze_or_thaw()
        # Before the order of the epoch is drawn, as it may follow the clusters.
        self._refresh_clusters()
        if state.step_in_epoch == 0:
            state.order_ids = state.assignments[0].ids if self._order_follows_clusters else None
        train_steps(
            self.model,
            state,
            self._batches(),
            self.meter,
            augmentation=self.augmentation,
            cluster_ids=lambda: self.cluster_ids,
            accumulate_batches=self.config.train.accumulate_batches,
            device=self.session.device,
            before_step=self._before_step,
            after_step=self._after_step,
        )
        share_buffers(state.model, self.session.world_size)
        share_buffers(state.objective.embedding_model(state.model), self.session.world_size)
        metrics = {
            **self._training_metrics(),
            **self.reclusterer.drain_metrics(),
            "recluster/age_epochs": state.age_epochs,
            **self.cluster_metrics.of(state.assignments[0]),
        }
        state.epoch, state.step_in_epoch, self.meter = state.epoch + 1, 0, EpochMeter()
        return {"epoch": state.epoch, **metrics}

    def _freeze_or_thaw(self) -> None:
        frozen = self.state.epoch < self.config.encoder.frozen_epochs
        if frozen != self.state.model.is_frozen:
            freeze_encoder(self.state, frozen)
            # DDP exchanges the gradients of what was trained when it was made.
            self.model = self._wrapped()

    def _wrapped(self) -> nn.Module:
        session = self.session
        return wrap_for_workers(self.state.model, self.config.train, session.world_size, session.device)

    def _load(self, checkpoint: Checkpoint) -> None:
        self.state.load_checkpoint(checkpoint)
        self.meter = EpochMeter.from_state(checkpoint["meter"], self.session.device)
        self.reclusterer.metrics = dict(checkpoint["recluster_metrics"])

    def checkpoint(self) -> Checkpoint | None:
        """What the run resumes from, on rank 0; every rank must call it."""
        bank = self.state.bank
        parts = gather_on_first(
            {"meter": self.meter.state_dict(), "bank": None if bank is None else bank.state_dict()},
            self.session.world_size,
        )
        if parts is None:
            return None
        whole: Any = {
            **self.state.to_checkpoint(self.config, self.data.num_channels),
            "meter": mean_state([part["meter"] for part in parts]),
            "bank": None if bank is None else merge_banks([part["bank"] for part in parts], self.shards),
            "recluster_metrics": self.reclusterer.metrics,
        }
        checkpoint: Checkpoint = whole
        return checkpoint

    def _before_step(self) -> None:
        self._refresh_clusters()
        state, session = self.state, self.session
        session.at_step(state.step, state.steps_per_epoch)
        torch.manual_seed(derive_seed(self.config.seed, "augmentation", epoch=state.step, rank=session.rank))

    def _after_step(self) -> None:
        state, every = self.state, self.config.train.checkpoint_every_steps
        if every is not None and state.step_in_epoch % every == 0 and state.step_in_epoch < state.steps_per_epoch:
            self._losses()
            self.session.save(self.checkpoint())

    def _refresh_clusters(self) -> None:
        if self.reclusterer.at_step():
            self.cluster_ids = ids_on_device(self.state.assignments, self.session.device)

    def _losses(self) -> list[float]:
        """Those of the epoch so far; raises TrainingError where one is not finite."""
        rate, temperature = self.state.schedule.get_last_lr()[0], self.config.objective.temperature
        where = f"epoch {self.state.epoch + 1}, worker {self.session.rank}"
        return self.meter.checked_losses(where, f"learning rate {rate:.3g}, temperature {temperature}")

    def _training_metrics(self) -> Metrics:
        """The epoch's own metrics; workers see different batches, and what is reported is their mean."""
        meter, world_size = self.meter, self.session.world_size
        assert meter.spread is not None, "an epoch has a step"
        own = np.array([np.mean(self._losses()), torch.stack(meter.positives).mean().item(), meter.spread.item()])
        loss, positives, spread = np.mean(gather(own, world_size), axis=0).tolist()
        seconds = meter.seconds + meter.data_wait_seconds
        return {
            "train/loss": loss,
            "train/positives_per_anchor": positives,
            "train/embedding_spread": spread,
            "train/samples_per_second": meter.num_samples * world_size / seconds,
            "train/data_wait_seconds": meter.data_wait_seconds,
            "train/seconds": seconds,
        }

    @property
    def _order_follows_clusters(self) -> bool:
        return self.config.train.sampler == "cluster" or self.state.objective.draws_pairs

    def _batches(self) -> Iterator[Batch]:
        """What is left of this worker's batches of the epoch, in an order drawn from (seed, epoch, rank)."""
        config, state, session, num_images = self.config, self.state, self.session, len(self.data.train)
        indices = self.shards[session.rank]
        generator = np.random.default_rng(
            derive_seed(config.seed, "shuffle", epoch=state.epoch, rank=session.rank)
        )  # fmt: skip
        ids = state.order_ids
        if config.train.sampler == "cluster":
            assert ids is not None, "kept where the order follows the clusters"
            order = cluster_order(indices, ids[indices], config.train.members_per_cluster, generator)
        else:
            order = self.data.train.images.order(indices, generator, config.data)
        size, steps = min(config.train.global_batch_size, num_images) // session.world_size, state.steps_per_epoch
        if state.objective.draws_pairs:
            assert ids is not None, "kept where the order follows the clusters"
            chosen = order[: steps * size].reshape(steps, size)
            partners = draw_partners(chosen.reshape(-1), ids, generator).reshape(steps, size)
            order, size = np.concatenate([chosen, partners], axis=1).reshape(-1), 2 * size
        order, left = order[state.step_in_epoch * size :], steps - state.step_in_epoch
        return training_batches(
            self.data.train, order, batch_size=size, steps=left, config=config.data
        )  # fmt: skip


def _size_of(samples: Samples) -> tuple[int, int]:
    """Height and width in pixels of the images, and so of their views."""
    size = samples.images.size
    assert size is not None, "load_dataset requires image_size for data decoded while training"
    return size
