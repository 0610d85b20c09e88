"""Representations of images over the workers: all of a data set on rank 0, and of random views of some."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from clray.config import Config
from clray.data.augmentation import build_augmentation, draw_views
from clray.data.loaders import ordered_batches, shard_indices
from clray.data.samples import Dataset, Samples
from clray.errors import TrainingError
from clray.model.encoder import ContrastiveModel
from clray.model.features import EMBEDDING_BATCH_SIZE, compute_features
from clray.training.workers.port import Session, agree
from clray.training.workers.rows import rows_on_first


class Features(NamedTuple):
    """Of N images: representations h, float32 [N, h_dim], and embeddings z, float32 [N, z_dim], if wanted."""

    h: np.ndarray
    z: np.ndarray


def features_on_first(
    config: Config, model: ContrastiveModel, images: Samples, session: Session, *, with_z: bool
) -> Features | None:  # fmt: skip
    """Those of all images in dataset order on rank 0, None on the others; each image is embedded by one worker.

    Args:
        with_z: else there are none, [N, 0].

    Raises:
        TrainingError: on all ranks, where one of them has met NaN or infinity.
    """
    shards = shard_indices(images, session.world_size)
    own, h, z = shards[session.rank], _no_rows(model.representation_dim), _no_rows(model.embedding_dim * with_z)
    if len(own):
        batches = ordered_batches(images, own, batch_size=EMBEDDING_BATCH_SIZE, config=config.data)
        h, *others = compute_features(model, batches, session.device, "hz" if with_z else "h")
        z = others[0] if others else np.empty((len(h), 0), np.float32)
    if not agree(bool(np.isfinite(h).all()), session):
        raise TrainingError("the representation holds NaN or infinity; lower train.learning_rate")
    h_of_all, z_of_all = rows_on_first(h, shards, session.rank), rows_on_first(z, shards, session.rank)
    return None if h_of_all is None or z_of_all is None else Features(h_of_all, z_of_all)


def _no_rows(dim: int) -> np.ndarray:
    return np.empty((0, dim), np.float32)


def two_views(
    config: Config, model: ContrastiveModel, data: Dataset, session: Session, *, most: int, seed: int
) -> tuple[Features, Features]:
    """Of two random views of at most `most` of this worker's training images; leaves torch's generator as it was."""
    own = shard_indices(data.train, session.world_size)[session.rank]
    # Of images that are read in order the first are cheap, of others those that stand for all.
    stride = 1 if data.train.images.is_sequential else max(1, len(own) // most)
    with _seeded(seed, session.device):
        pairs = list(_view_batches(config, data, own[::stride][:most], session.device, EMBEDDING_BATCH_SIZE))
    first, second = (
        Features(*compute_features(model, [(views[number], rows) for views, rows in pairs], session.device))
        for number in range(2)
    )
    return first, second


def view_pairs(
    config: Config, model: ContrastiveModel, data: Dataset, indices: np.ndarray, device: torch.device, *, seed: int
) -> tuple[Features, Features]:
    """Of two random views of each of these training images, batch by batch; leaves torch's generator as it was."""
    with _seeded(seed, device):
        batches = _view_batches(config, data, indices, device, EMBEDDING_BATCH_SIZE // 2)
        # The two views of an image follow each other.
        h, z = compute_features(model, ((views.transpose(0, 1).flatten(0, 1), rows) for views, rows in batches), device)
    return Features(h[0::2], z[0::2]), Features(h[1::2], z[1::2])


def _view_batches(
    config: Config, data: Dataset, indices: np.ndarray, device: torch.device, batch_size: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Two views of each image, float [2, batch, channels, height, width], and the images' indices."""
    size = data.train.images.size
    assert size is not None, "load_dataset requires image_size for data decoded while training"
    augmentation = build_augmentation(config.augmentation, size[1], data.num_channels)
    for images, rows in ordered_batches(data.train, indices, batch_size=batch_size, config=config.data):
        yield draw_views(augmentation, images.to(device), 2), rows


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """With torch's generators at this seed, and afterwards as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
