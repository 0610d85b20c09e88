"""h and z of a whole data set, each image once, without augmentation."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from clray.data.augmentation import to_float

EMBEDDING_BATCH_SIZE = 512


@torch.no_grad()
def compute_features(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device, wanted: str = "hz"
) -> tuple[np.ndarray, ...]:
    """Representations h, embeddings z, or both, in the order of the batches.

    Each batch leaves the device before the next one comes, so that a data set of any size fits.

    Args:
        model: returns (h, z, ...) of a float batch; it is left in the mode it was in.
        batches: uint8 images and their indices.
        wanted: `h`, `z` or `hz`.

    Returns:
        What is wanted, in this order: h is float32 [N, h_dim], z float32 [N, z_dim].
    """
    parts: list[list[np.ndarray]] = [[] for _ in wanted]
    was_training = model.training
    model.eval()
    try:
        for images, _ in batches:
            outputs = model(to_float(images.to(device)))
            for part, name in zip(parts, wanted, strict=True):
                part.append(outputs["hz".index(name)].float().cpu().numpy())
    finally:
        model.train(was_training)
    return tuple(map(np.concatenate, parts))
