"""How good a model's representation is: linear probe and nearest neighbours, over the images of all workers."""

import time
from pathlib import Path

import numpy as np
import torch

from clray.clusters.statistics import cluster_metrics
from clray.config import Config
from clray.data.augmentation import build_augmentation, draw_views
from clray.data.loaders import ordered_batches, shard_indices
from clray.data.samples import Dataset, Samples
from clray.errors import TrainingError
from clray.evaluate.label_free import MAX_PAIRED, MAX_SAMPLES, label_free_measures
from clray.evaluate.labelled import Labelled
from clray.evaluate.linear_probe import LinearProbe
from clray.evaluate.nearest_neighbors import nearest_neighbor_measures
from clray.model.encoder import ContrastiveModel
from clray.model.features import EMBEDDING_BATCH_SIZE, compute_features
from clray.seeding import derive_seed
from clray.training.checkpoint import Checkpoint
from clray.training.encoder_start import fresh_model
from clray.training.export import load_model
from clray.training.metrics import Metrics
from clray.training.workers.port import Session, agree, from_first, gather_on_first
from clray.training.workers.process import LocalSession, default_device


def evaluate(
    config: Config, model: ContrastiveModel, data: Dataset, session: Session, *, with_test: bool
) -> Metrics:  # fmt: skip
    """Linear-probe and nearest-neighbour accuracy of the representation h; every rank must call it.

    `eval/...` is measured on the validation images, and chooses; `test/...` on the test images, which are embedded
    `with_test` alone, for a run that ends. Without validation images both are measured on the test images. What the
    labels do not tell is left out.

    `eval/rankme`, `eval/stability` and the like need no labels: they are measured on training images.

    Each worker embeds its own images; the rows go to rank 0, which measures while the others wait.
    """
    start = time.perf_counter()
    parts = {"train": data.train} | ({} if data.validation is None else {"eval": data.validation})
    if with_test or data.validation is None:
        parts["test"] = data.test
    h = {name: _on_first(config, model, images, session) for name, images in parts.items()}

    def measure() -> Metrics:
        labelled = {name: _labelled(rows, parts[name].labels) for name, rows in h.items() if rows is not None}
        accuracies = _measure(config, labelled, data.num_classes, session.device)
        return accuracies | _label_free(config, model, data, h["train"], session)

    found = from_first(measure, session.world_size)
    if data.validation is None:
        found |= {name.replace("test/", "eval/", 1): value for name, value in found.items() if name.startswith("test/")}
    shown = ("eval/", "test/") if with_test else ("eval/",)
    metrics = {name: value for name, value in found.items() if name.startswith(shown)}
    return {**metrics, "eval/seconds": time.perf_counter() - start}


def _measure(config: Config, parts: dict[str, Labelled], num_classes: int, device: torch.device) -> Metrics:
    """Of all parts but the training images, by `part/name`; none where there is nothing to learn or to measure."""
    train = parts["train"]
    measured = {name: part for name, part in parts.items() if name != "train" and len(part)}
    if not measured or not train.has_classes:
        return {}
    probe = LinearProbe(
        train,
        measured.get("eval"),
        num_classes=num_classes,
        seed=derive_seed(config.seed, "probe") % 2**32,
        device=device,
    )
    settings = config.evaluate
    linear = probe.measure(measured, budgets=settings.budgets, num_draws=settings.label_draws)
    found = Metrics()
    for name, part in measured.items():
        by_neighbors = nearest_neighbor_measures(
            train, part, num_classes=num_classes, num_neighbors=settings.num_neighbors, device=device
        )
        found |= {f"{name}/{key}": value for key, value in (linear[name] | by_neighbors).items()}
    return found


def _label_free(
    config: Config, model: ContrastiveModel, data: Dataset, train_h: np.ndarray | None, session: Session
) -> Metrics:
    """What is known of the representation without labels, on rank 0."""
    assert train_h is not None, "the rows are on rank 0"
    seed = derive_seed(config.seed, "label-free") % 2**32
    rows = np.random.default_rng(seed).permutation(len(train_h))[:MAX_SAMPLES]
    views = _two_views(config, model, data, session, seed)
    return {f"eval/{name}": value for name, value in label_free_measures(train_h[rows], views, seed=seed).items()}


def _two_views(
    config: Config, model: ContrastiveModel, data: Dataset, session: Session, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """h of two random views of some of this worker's training images."""
    own = shard_indices(data.train, session.world_size)[session.rank]
    # Of images that are read in order the first are cheap, of others those that stand for all.
    stride = 1 if data.train.images.is_sequential else max(1, len(own) // MAX_PAIRED)
    own = own[::stride][:MAX_PAIRED]
    size = data.train.images.size
    assert size is not None, "load_dataset requires image_size for data decoded while training"
    augmentation = build_augmentation(config.augmentation, size[1], data.num_channels)
    batches = ordered_batches(data.train, own, batch_size=EMBEDDING_BATCH_SIZE, config=config.data)
    with torch.random.fork_rng([session.device] if session.device.type == "cuda" else []):
        torch.manual_seed(seed)
        pairs = [(draw_views(augmentation, images.to(session.device), 2), rows) for images, rows in batches]
    first, second = (
        compute_features(model, [(views[number], rows) for views, rows in pairs], session.device)[0]
        for number in range(2)
    )
    return first, second


def _labelled(h: np.ndarray, labels: np.ndarray) -> Labelled:
    """The rows of the images that have a label."""
    known = labels >= 0 if labels.ndim == 1 else (labels >= 0).any(1)
    return Labelled(h, labels) if known.all() else Labelled(h[known], labels[known])


def evaluate_checkpoint(checkpoint: Checkpoint, config: Config, data: Dataset) -> Metrics:
    """Accuracy of a checkpoint's encoder, and where the data are those it was trained on its cluster statistics."""
    model = load_model(checkpoint, config)
    session = LocalSession(Path(), None, lambda _: None, default_device())
    metrics = {
        "epoch": checkpoint["epoch"],
        **evaluate(config, model.to(session.device), data, session, with_test=True),
    }
    ids = checkpoint["cluster_ids"][0].numpy()
    if len(ids) == len(data.train):
        metrics |= cluster_metrics(ids, data.train.labels, checkpoint["num_clusters"][0])
    return metrics


def evaluate_untrained(config: Config, data: Dataset) -> Metrics:
    """Accuracy of the encoder that a run with this config starts from."""
    session = LocalSession(Path(), None, lambda _: None, default_device())
    model = fresh_model(config, data.num_channels, config.clusters.num_clusters)
    return evaluate(config, model.to(session.device), data, session, with_test=True)


def _on_first(config: Config, model: ContrastiveModel, images: Samples, session: Session) -> np.ndarray | None:
    """h of all images in dataset order on rank 0, None on the others; each image is embedded by one worker.

    Raises:
        TrainingError: on all ranks, where one of them has met NaN or infinity.
    """
    shards = shard_indices(images, session.world_size)
    own = shards[session.rank]
    if len(own):
        batches = ordered_batches(images, own, batch_size=EMBEDDING_BATCH_SIZE, config=config.data)
        h, _ = compute_features(model, batches, session.device)
    else:
        h = np.empty((0, model.representation_dim), np.float32)
    if not agree(bool(np.isfinite(h).all()), session):
        raise TrainingError("the representation holds NaN or infinity; lower train.learning_rate")
    parts = gather_on_first(h, session.world_size)
    if parts is None:
        return None
    if len(parts) == 1 and np.array_equal(own, np.arange(len(images))):
        return h
    result = np.empty((len(images), h.shape[1]), np.float32)
    for indices, part in zip(shards, parts, strict=True):
        result[indices] = part
    return result
