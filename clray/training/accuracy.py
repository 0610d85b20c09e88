"""How good a model's representation is: linear probe and nearest neighbours, over the images of all workers."""

import time
from pathlib import Path

import numpy as np
import torch

from clray.clusters.statistics import cluster_statistics
from clray.config import Config
from clray.data.loaders import ordered_batches, shard_indices
from clray.data.samples import Dataset, Samples
from clray.errors import TrainingError
from clray.evaluate.linear_probe import linear_probe_accuracy
from clray.evaluate.nearest_neighbors import nearest_neighbor_accuracy
from clray.model.encoder import ContrastiveModel
from clray.model.features import EMBEDDING_BATCH_SIZE, compute_features
from clray.seeding import derive_seed
from clray.training.checkpoint import Checkpoint
from clray.training.export import load_model
from clray.training.metrics import Metrics
from clray.training.workers.port import Session, gather
from clray.training.workers.process import LocalSession, default_device


def evaluate(
    config: Config, model: ContrastiveModel, data: Dataset, session: Session, *, with_test: bool
) -> Metrics:  # fmt: skip
    """Linear-probe and nearest-neighbour accuracy of the representation h; every rank must call it.

    `eval/...` is measured on the validation images, and chooses; `test/...` on the test images, which are embedded
    `with_test` alone, for a run that ends. Without validation images both are measured on the test images.
    """
    start = time.perf_counter()
    parts = {} if data.validation is None else {"eval": data.validation}
    if with_test or not parts:
        parts["test"] = data.test
    train_h, *others = (_representations(config, model, images, session) for images in (data.train, *parts.values()))
    if not all(np.isfinite(h).all() for h in (train_h, *others)):
        raise TrainingError("the representation holds NaN or infinity; lower train.learning_rate")
    found = {}
    for (name, images), h in zip(parts.items(), others, strict=True):
        splits = (train_h, data.train.labels, h, images.labels)
        found[f"{name}/linear_accuracy"] = linear_probe_accuracy(
            *splits,
            num_classes=data.num_classes,
            config=config.evaluate,
            seed=derive_seed(config.seed, "probe") % 2**32,
            device=session.device,
        )
        found[f"{name}/knn_accuracy"] = nearest_neighbor_accuracy(
            *splits, num_neighbors=config.evaluate.num_neighbors
        )  # fmt: skip
    chosen_by = {f"eval/{name}": found[f"{next(iter(parts))}/{name}"] for name in ("linear_accuracy", "knn_accuracy")}
    reported = {name: value for name, value in found.items() if with_test and name.startswith("test/")}
    return {**chosen_by, **reported, "eval/seconds": time.perf_counter() - start}


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
        metrics |= cluster_statistics(ids, data.train.labels, checkpoint["num_clusters"][0]).as_metrics()
    return metrics


def evaluate_untrained(config: Config, data: Dataset) -> Metrics:
    """Accuracy of the encoder that a run with this config starts from."""
    session = LocalSession(Path(), None, lambda _: None, default_device())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        model = ContrastiveModel(config, data.num_channels, config.clusters.num_clusters)
    return evaluate(config, model.to(session.device), data, session, with_test=True)


def _representations(config: Config, model: ContrastiveModel, images: Samples, session: Session) -> np.ndarray:
    """h of all images in dataset order, each computed by one worker."""
    shards = shard_indices(images, session.world_size)
    own = shards[session.rank]
    if len(own):
        batches = ordered_batches(images, own, batch_size=EMBEDDING_BATCH_SIZE, config=config.data)
        h, _ = compute_features(model, batches, session.device)
    else:
        h = np.empty((0, model.representation_dim), np.float32)
    result = np.empty((len(images), h.shape[1]), np.float32)
    for indices, part in zip(shards, gather(h, session.world_size), strict=True):
        result[indices] = part
    return result
