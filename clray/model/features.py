"""h and z of a whole data set, each image once, without augmentation."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from clray.data.augmentation import to_float

EMBEDDING_BATCH_SIZE = 512


@torch.no_grad()
def compute_features(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], device: torch.device
) -> tuple[np.ndarray, np.ndarray]:
    """Representations and embeddings in the order of the batches.

    Args:
        model: returns (h, z, ...) of a float batch; it is left in the mode it was in.
        batches: uint8 images and their indices.

    Returns:
        h, float32 [N, h_dim], and z, float32 [N, z_dim].
    """
    was_training = model.training
    model.eval()
    try:
        outputs = [model(to_float(images.to(device))) for images, _ in batches]
    finally:
        model.train(was_training)
    h, z = (torch.cat(parts).float().cpu().numpy() for parts in zip(*(out[:2] for out in outputs), strict=True))
    return h, z
