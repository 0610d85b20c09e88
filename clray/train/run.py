"""One run: restore, then for each epoch train with fresh clusters, evaluate, report."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clray.clusters.assignment import ClusterAssignment
from clray.clusters.known import known_clusters
from clray.clusters.statistics import cluster_statistics
from clray.config import Config, UserError
from clray.data.augmentation import build_augmentation
from clray.data.datasets import Dataset, ImageSet
from clray.data.loaders import Batch, num_steps, ordered_batches, shard_indices, training_batches
from clray.data.sampling import cluster_order, draw_partners, uniform_order
from clray.evaluate.linear_probe import linear_probe_accuracy
from clray.evaluate.nearest_neighbors import nearest_neighbor_accuracy
from clray.model.encoder import ContrastiveModel, build_encoder
from clray.model.features import compute_features
from clray.seeding import derive_seed
from clray.train.bank import merge_banks
from clray.train.epoch import EpochMeter, TrainingError, mean_state, train_steps
from clray.train.export import load_model
from clray.train.recluster import EMBEDDING_BATCH_SIZE, Reclusterer, ids_on_device
from clray.train.session import LocalSession, Metrics, Session, default_device, gather, gather_objects
from clray.train.state import TrainState, create_state, share_buffers, wrap_for_workers


def check_against_data(config: Config, data: Dataset) -> None:
    """Raise UserError for settings that these data rule out; costs nothing and comes before Ray starts."""
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
    build_encoder(config.encoder, data.num_channels)
    for assignment in start_clusters(config, data):
        if config.objective.is_classification and assignment.num_clusters < 2:
            raise UserError(
                f"objective.name={config.objective.name}: all {num_images} training images are in one cluster, so that "
                "there is nothing to predict; choose other clusters"
            )


def start_clusters(config: Config, data: Dataset) -> tuple[ClusterAssignment, ...]:
    """The assignments the run starts with."""
    train = data.train
    return known_clusters(
        config.clusters, labels=train.labels, columns=train.columns, names=data.names, seed=config.seed
    )


def run(config: Config, data: Dataset, session: Session) -> Metrics:
    """Train to the end, from the session's checkpoint where it has one; returns the last epoch's metrics."""
    state = create_state(
        config,
        num_channels=data.num_channels,
        steps_per_epoch=num_steps(len(data.train), config.train.global_batch_size, session.world_size),
        assignments=start_clusters(config, data),
        device=session.device,
        rank=session.rank,
        world_size=session.world_size,
    )
    checkpoint, meter = session.restore(), EpochMeter()
    if checkpoint is not None:
        state.load_checkpoint(checkpoint)
        meter = EpochMeter.from_state(checkpoint["meter"], session.device)
    model = wrap_for_workers(state.model, config.train, session.world_size, session.device)
    augmentation = build_augmentation(config.augmentation, image_size(data.train, config), data.num_channels)
    reclusterer = Reclusterer(config, data, state, session)
    reclusterer.metrics = dict(checkpoint["recluster_metrics"]) if checkpoint is not None else {}

    metrics: Metrics = {}
    while state.epoch < config.train.num_epochs:
        # Before the order of the epoch is drawn, as it may follow the clusters.
        reclusterer.at_step()
        if state.step_in_epoch == 0:
            state.order_ids = state.assignments[0].ids if _order_follows_clusters(config) else None
        clusters = [ids_on_device(state.assignments, session.device)]

        def before_step(clusters: list[Tensor] = clusters) -> None:
            if reclusterer.at_step():
                clusters[0] = ids_on_device(state.assignments, session.device)
            session.at_step(state.step, state.steps_per_epoch)
            torch.manual_seed(derive_seed(config.seed, "augmentation", epoch=state.step, rank=session.rank))

        def after_step(meter: EpochMeter = meter) -> None:
            every = config.train.checkpoint_every_steps
            if every is not None and state.step_in_epoch % every == 0 and state.step_in_epoch < state.steps_per_epoch:
                _losses(config, state, meter, session)
                session.save(_checkpoint(config, data, state, meter, reclusterer, session))

        train_steps(
            model,
            state,
            _epoch_batches(config, state, data, session),
            meter,
            augmentation=augmentation,
            cluster_ids=lambda clusters=clusters: clusters[0],
            accumulate_batches=config.train.accumulate_batches,
            device=session.device,
            before_step=before_step,
            after_step=after_step,
        )
        share_buffers(state.model, session.world_size)
        metrics = {
            **_training_metrics(config, state, meter, session),
            **reclusterer.drain_metrics(),
            "recluster/age_epochs": state.age_epochs,
        }
        state.epoch, state.step_in_epoch = state.epoch + 1, 0
        metrics["epoch"] = state.epoch
        first = state.assignments[0]
        metrics |= cluster_statistics(first.ids, data.train.labels, first.num_clusters).as_metrics()
        metrics["clusters/largest_fraction"] = float(first.sizes.max() / len(first))
        is_last, every = state.epoch == config.train.num_epochs, config.evaluate.every_epochs
        if is_last or (every is not None and state.epoch % every == 0):
            metrics |= evaluate(config, state.model, data, session)
        due, meter = is_last or state.epoch % config.train.checkpoint_every_epochs == 0, EpochMeter()
        session.report(metrics, _checkpoint(config, data, state, meter, reclusterer, session) if due else None)
    return metrics


def _training_metrics(config: Config, state: TrainState, meter: EpochMeter, session: Session) -> Metrics:
    """The epoch's own metrics; workers see different batches, and what is reported is their mean."""
    losses = _losses(config, state, meter, session)
    positives, spread = (torch.stack(values).mean().item() for values in (meter.positives, [meter.spread]))
    own = np.array([np.mean(losses), positives, spread])
    loss, positives, spread = np.mean(gather(own, session.world_size), axis=0).tolist()
    return {
        "train/loss": loss,
        "train/positives_per_anchor": positives,
        "train/embedding_spread": spread,
        "train/samples_per_second": meter.num_samples * session.world_size / (meter.seconds + meter.data_wait_seconds),
        "train/data_wait_seconds": meter.data_wait_seconds,
        "train/seconds": meter.seconds + meter.data_wait_seconds,
    }


def _losses(config: Config, state: TrainState, meter: EpochMeter, session: Session) -> list[float]:
    """Those of the epoch so far; raises TrainingError where one is not finite."""
    rate, temperature = state.schedule.get_last_lr()[0], config.objective.temperature
    where = f"epoch {state.epoch + 1}, worker {session.rank}"
    return meter.checked_losses(where, f"learning rate {rate:.3g}, temperature {temperature}")


def _checkpoint(
    config: Config,
    data: Dataset,
    state: TrainState,
    meter: EpochMeter,
    reclusterer: Reclusterer,
    session: Session,
) -> dict[str, Any] | None:
    """What the run goes on from, on rank 0; every rank must call it."""
    parts = {"meter": meter.state_dict(), "bank": None if state.bank is None else state.bank.state_dict()}
    all_parts = gather_objects(parts, session.world_size)
    if session.rank != 0:
        return None
    bank = None if state.bank is None else merge_banks([part["bank"] for part in all_parts])
    return {
        **state.to_checkpoint(config, data.num_channels),
        "meter": mean_state([part["meter"] for part in all_parts]),
        "bank": bank,
        "recluster_metrics": reclusterer.metrics,
    }


def _order_follows_clusters(config: Config) -> bool:
    return config.train.sampler == "cluster" or config.objective.form == "pair-sampled"


def _epoch_batches(config: Config, state: TrainState, data: Dataset, session: Session) -> Iterator[Batch]:
    """What is left of this worker's batches of the epoch, in an order drawn from (seed, epoch, rank)."""
    indices = shard_indices(len(data.train), session.rank, session.world_size)
    seed = derive_seed(config.seed, "shuffle", epoch=state.epoch, rank=session.rank)
    generator, ids = np.random.default_rng(seed), state.order_ids
    if config.train.sampler == "cluster":
        assert ids is not None, "kept where the order follows the clusters"
        order = cluster_order(indices, ids[indices], config.train.members_per_cluster, generator)
    else:
        order = uniform_order(indices, generator)
    size = min(config.train.global_batch_size, len(data.train)) // session.world_size
    steps = state.steps_per_epoch
    if state.objective.draws_pairs:
        chosen = order[: steps * size].reshape(steps, size)
        assert ids is not None, "kept where the order follows the clusters"
        partners = draw_partners(chosen.reshape(-1), ids, generator).reshape(steps, size)
        order, size = np.concatenate([chosen, partners], axis=1).reshape(-1), 2 * size
    order, left = order[state.step_in_epoch * size :], steps - state.step_in_epoch
    return training_batches(data.train, order, batch_size=size, steps=left, num_decoders=config.data.num_decoders)


def evaluate(config: Config, model: ContrastiveModel, data: Dataset, session: Session) -> Metrics:
    """Linear-probe and nearest-neighbour accuracy of the representation h; every rank must call it."""
    start = time.perf_counter()
    train_h, test_h = (_representations(config, model, images, session) for images in (data.train, data.test))
    if not (np.isfinite(train_h).all() and np.isfinite(test_h).all()):
        raise TrainingError("the representation holds NaN or infinity; lower train.learning_rate")
    splits = (train_h, data.train.labels, test_h, data.test.labels)
    linear = linear_probe_accuracy(
        *splits,
        num_classes=data.num_classes,
        config=config.evaluate,
        seed=derive_seed(config.seed, "probe") % 2**32,
        device=session.device,
    )
    knn = nearest_neighbor_accuracy(*splits, num_neighbors=config.evaluate.num_neighbors)
    return {
        "eval/linear_accuracy": linear,
        "eval/knn_accuracy": knn,
        "eval/seconds": time.perf_counter() - start,
    }


def evaluate_checkpoint(checkpoint: dict[str, Any], config: Config, data: Dataset) -> Metrics:
    """Accuracy of a checkpoint's encoder, and where the data are those it was trained on its cluster statistics."""
    model = load_model(checkpoint, config)
    session = LocalSession(Path(), None, lambda _: None, default_device())
    metrics = {"epoch": checkpoint["epoch"], **evaluate(config, model.to(session.device), data, session)}
    ids = checkpoint["cluster_ids"][0].numpy()
    if len(ids) == len(data.train):
        metrics |= cluster_statistics(ids, data.train.labels, checkpoint["num_clusters"][0]).as_metrics()
    return metrics


def _representations(config: Config, model: ContrastiveModel, images: ImageSet, session: Session) -> np.ndarray:
    """h of all images in dataset order, each computed by one worker."""
    shards = [shard_indices(len(images), rank, session.world_size) for rank in range(session.world_size)]
    own = shards[session.rank]
    if len(own):
        batches = ordered_batches(images, own, batch_size=EMBEDDING_BATCH_SIZE, num_decoders=config.data.num_decoders)
        h, _ = compute_features(model, batches, session.device)
    else:
        h = np.empty((0, model.representation_dim), np.float32)
    result = np.empty((len(images), h.shape[1]), np.float32)
    for indices, part in zip(shards, gather(h, session.world_size), strict=True):
        result[indices] = part
    return result


def image_size(images: ImageSet, config: Config) -> int:
    """Height in pixels of the views: that of the images, or `data.image_size` where they are decoded later."""
    if isinstance(images.images, np.ndarray):
        return images.images.shape[-1]
    assert config.data.image_size is not None, "load_dataset requires image_size for data decoded while training"
    return config.data.image_size
