"""One run: restore, then for each epoch train with fresh clusters, evaluate, report."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from clray.config import Config, override, stored_config
from clray.data.augmentation import build_augmentation
from clray.data.held import brought_to, held_on
from clray.data.images.port import Batch
from clray.data.loaders import fewest_steps, shard_indices
from clray.data.samples import Dataset
from clray.data.transfer import to_device
from clray.seeding import derive_seed
from clray.training.accuracy import evaluate
from clray.training.arithmetic import arithmetic_of_run, products_of_step
from clray.training.batches import epoch_batches, order_follows_clusters
from clray.training.check import pixel_size, view_shape
from clray.training.checkpoint_form import Checkpoint, Part, Snapshot
from clray.training.cluster_metrics import ClusterMetrics
from clray.training.compiling import compile_step, forget_compiled, is_worth_compiling
from clray.training.encoder_start import with_pixels
from clray.training.epoch import EpochMeter, train_step, waited_for
from clray.training.first_clusterings import Wanted, as_tree
from clray.training.members import choose_members, draws_every_epoch, training_ids
from clray.training.metrics import Metrics
from clray.training.pixel_statistics import with_own_pixels
from clray.training.precision import (
    IS_BFLOAT16,
    IS_FLOAT16,
    Precision,
    gradient_scaler,
    settled_precision,
    warn_of_kept,
)
from clray.training.recluster import Reclusterer
from clray.training.start import Start, start_clusters
from clray.training.state import create_state, freeze_encoder, share_buffers, wrap_for_workers
from clray.training.workers.port import Session, from_first, gather


def run(config: Config, data: Dataset, session: Session, start: Start | None = None) -> Metrics:
    """Train to the end, from the session's checkpoint where it has one; returns the last epoch's metrics.

    Args:
        start: what a fresh run starts from, where that is built already; its model is trained in place.
    """
    with closing(session):
        this = _Run(config, data, session, start or Start(start_clusters(config, data)))
        return this.train_until(config.train.num_epochs)


def grow(config: Config, data: Dataset, session: Session, wanted: Sequence[Wanted], start: Start | None = None) -> None:
    """Train the epochs before the first clustering, and cluster for several runs that share them.

    The last checkpoint that the session is given holds the clusterings too, as `first`.

    Args:
        wanted: what the runs ask of their first clustering.
    """
    with closing(session):
        this = _Run(config, data, session, start or Start(start_clusters(config, data)))
        this.train_until(config.recluster.warmup_epochs)
        with arithmetic_of_run(config.train, session.device):
            found = this.reclusterer.first_for(wanted)
        snapshot = this.snapshot()
        if snapshot.shared is not None:
            snapshot.shared["first"] = as_tree(found)
        session.save(snapshot)


class _Run:
    """A run on one worker, between its steps."""

    def __init__(self, config: Config, data: Dataset, session: Session, start: Start) -> None:
        """Starts afresh, or where the session's checkpoint stands."""
        config = with_pixels(with_own_pixels(config, data.train))
        data = replace(data, train=held_on(session.device, data.train, config.data))
        self.config, self.data, self.session = config, data, session
        self.shards = shard_indices(data.train, session.world_size)
        self.state = create_state(
            config,
            num_channels=data.num_channels,
            steps_per_epoch=fewest_steps(
                data.train, config.train.group_sizes, min(config.train.global_batch_size, len(data.train))
            ),
            start=start,
            device=session.device,
            shard=self.shards[session.rank],
            world_size=session.world_size,
        )
        self.reclusterer = Reclusterer(config, data, self.state, session, start.first)
        self.cluster_metrics = ClusterMetrics(data.train, session)
        self.meter = EpochMeter.on(session.device)
        self.precision: Precision = config.train.precision
        is_resumed = session.restore(self._load, self.shards[session.rank])
        if is_resumed and config.train.precision == "auto" and session.rank == 0:
            warn_of_kept(self.precision, session.device)
        if is_resumed:
            self.state.share(session)
        self._settle_precision()
        self.augmentation = build_augmentation(config.augmentation, pixel_size(data.train)[1], data.num_channels)
        self._compile()
        self.model = self._wrapped()
        self._take_clusters()

    def train_until(self, num_epochs: int) -> Metrics:
        """Train and report epochs until so many are done; returns the metrics of the last."""
        metrics, config = Metrics(), self.config
        while self.state.epoch < num_epochs:
            with arithmetic_of_run(config.train, self.session.device):
                metrics = self.train_epoch()
            is_last, every = self.state.epoch == config.train.num_epochs, config.evaluate.every_epochs
            if is_last or (every is not None and self.state.epoch % every == 0):
                metrics |= evaluate(config, self.state.model, self.data, self.session, with_test=is_last)
            # An evaluated epoch may be the best, and the best is kept.
            due = "eval/seconds" in metrics or self.state.epoch % config.train.checkpoint_every_epochs == 0
            self.session.report(metrics, self.snapshot() if due else None)
        return metrics

    def train_epoch(self) -> Metrics:
        """Train what is left of the epoch; returns its metrics."""
        state = self.state
        self._freeze_or_thaw()
        # Before the order of the epoch is drawn, as it may follow the clusters.
        self._refresh_clusters()
        if state.step_in_epoch == 0:
            self._draw_members()
            state.order_ids = self.ids[0] if order_follows_clusters(self.config, state) else None
        self.model.train()
        for batch in waited_for(self._batches(), self.meter):
            self._refresh_clusters()
            self._begin_step()
            with self.meter.steps.running(), products_of_step(self.config.train, self.session.device):
                train_step(
                    self.model,
                    state,
                    batch,
                    self.meter,
                    augmentation=self.augmentation,
                    cluster_ids=self.cluster_ids,
                    accumulate_batches=self.config.train.accumulate_batches,
                )
            self._save_within_epoch()
        share_buffers(state.model, self.session.world_size)
        share_buffers(state.objective.embedding_model(state.model), self.session.world_size)
        metrics = {
            **self._training_metrics(),
            **self.reclusterer.drain_metrics(),
            "recluster/age_epochs": state.age_epochs,
            **self.cluster_metrics.of(state.assignments[0], state.confident),
        }
        state.epoch, state.step_in_epoch, self.meter = state.epoch + 1, 0, EpochMeter.on(self.session.device)
        return {"epoch": state.epoch, **metrics}

    def _freeze_or_thaw(self) -> None:
        frozen = self.state.epoch < self.config.encoder.frozen_epochs
        if frozen != self.state.model.is_frozen:
            freeze_encoder(self.state, frozen)
            # DDP exchanges the gradients of what was trained when it was made.
            self.model = self._wrapped()

    def _wrapped(self) -> nn.Module:
        return wrap_for_workers(self.state.model, self.session.world_size, self.session.device)

    def _compile(self) -> None:
        """Compile the step where rank 0 finds that it pays."""
        config, state, world_size = self.config, self.state, self.session.world_size
        if config.train.compile is False:
            return
        forget_compiled()
        num_steps = config.train.num_epochs * state.steps_per_epoch
        if from_first(
            lambda: is_worth_compiling(config, state.model, self._view_batch, num_steps=num_steps), world_size
        ):
            is_alone = config.train.accumulate_batches == 1
            compile_step(state.model, state.objective, self.augmentation, is_alone=is_alone)

    @property
    def _view_batch(self) -> tuple[int, int, int, int]:
        """Views that this worker embeds in a step, their channels, height and width."""
        size = min(self.config.train.global_batch_size, len(self.data.train)) // self.session.world_size
        return (self.state.objective.num_views * size, *view_shape(self.config, self.data))

    def _settle_precision(self) -> None:
        """That of the checkpoint, so that a run keeps what it started with; else rank 0's choice, on all workers."""
        config, state, session = self.config, self.state, self.session
        if self.precision == "auto":
            size, shape = self._view_batch[0], self._view_batch[1:]
            self._take_precision(
                from_first(
                    lambda: settled_precision(config, state.model, shape, size, session.device), session.world_size
                )
            )
        for model in (state.model, state.objective.embedding_model(state.model)):
            model.precision = self.precision
        # A checkpoint tells by it what the run was trained in.
        self.config = override(config, {"train.precision": self.precision})

    def _take_precision(self, precision: Precision) -> None:
        self.precision, self.state.scaler = precision, gradient_scaler(precision, self.session.device)

    def _load(self, checkpoint: Checkpoint) -> None:
        if self.config.train.precision == "auto":
            # On another device too: a scale belongs to the precision that the run began with.
            allowed = {"allow_user_modules": self.config.allow_user_modules}
            self._take_precision(stored_config(checkpoint["config"], allowed, "the checkpoint").train.precision)
        self.state.load_checkpoint(checkpoint)
        self.meter = EpochMeter.from_state(checkpoint["meter"], self.session.device)
        self.reclusterer.metrics = dict(checkpoint["recluster_metrics"])

    def snapshot(self) -> Snapshot:
        """What the run resumes from, as far as it is this worker's to write; the next step changes it."""
        state, rank = self.state, self.session.rank
        bank = None if state.bank is None else state.bank.state_dict()
        part: Part = {
            "rows": torch.from_numpy(self.shards[rank]),
            "meter": self.meter.state_dict(),
            "bank": bank,
        }
        if rank > 0:
            return Snapshot(None, part)
        shared = state.to_checkpoint(self.config, self.data.num_channels)
        return Snapshot({**shared, "recluster_metrics": self.reclusterer.metrics}, part)

    def _refresh_clusters(self) -> None:
        if self.reclusterer.at_step():
            self._take_clusters()

    def _draw_members(self) -> None:
        if draws_every_epoch(self.config):
            choose_members(self.config, self.state, None, self.session)
            self._take_clusters()

    def _take_clusters(self) -> None:
        """The clusters that a step sees, int32 [granularities, N], here and on the device; every rank must call it."""
        state = self.state
        if state.confident is None and len(state.assignments) == 1:
            self.ids = state.assignments[0].ids[None]
        else:
            self.ids = self.session.share(lambda: training_ids(self.config, state))
        self.cluster_ids = to_device(self.ids, self.session.device)

    def _begin_step(self) -> None:
        state, session = self.state, self.session
        session.at_step(state.step, state.steps_per_epoch)
        if session.device.type == "cuda" and self.config.train.compile is not False:
            torch.compiler.cudagraph_mark_step_begin()  # what the last step's graph gave is used up
        torch.manual_seed(derive_seed(self.config.seed, "augmentation", epoch=state.step, rank=session.rank))

    def _save_within_epoch(self) -> None:
        state, every = self.state, self.config.train.checkpoint_every_steps
        if every is not None and state.step_in_epoch % every == 0 and state.step_in_epoch < state.steps_per_epoch:
            self._losses()
            self.session.save(self.snapshot())

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
        waited = meter.waits.seconds
        seconds = meter.steps.seconds + waited
        return {
            "train/loss": loss,
            "train/positives_per_anchor": positives,
            "train/embedding_spread": spread,
            "train/samples_per_second": meter.num_samples * world_size / seconds,
            "train/data_wait_seconds": waited,
            "train/seconds": seconds,
            IS_BFLOAT16: float(self.precision == "bfloat16"),
            **({IS_FLOAT16: 1.0} if self.precision == "float16" else {}),
            **({} if self.config.train.min_workers is None else {"train/num_workers": float(world_size)}),
        }

    def _batches(self) -> Iterator[Batch]:
        session = self.session
        batches = epoch_batches(
            self.config,
            self.data.train,
            self.state,
            self.shards[session.rank],
            rank=session.rank,
            world_size=session.world_size,
        )
        is_there = self.data.train.held is not None
        return batches if is_there else brought_to(session.device, batches)
