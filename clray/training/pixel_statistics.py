"""The mean and deviation of the training images' own pixels, for `encoder.pixel_statistics: own`."""

import numpy as np
from jaxtyping import Float

from clray.config import Config, override
from clray.config.sections import DataConfig
from clray.data.loaders import ordered_batches
from clray.data.samples import Samples

MOST_IMAGES = 2000
"""Of so many, evenly spaced in the data set, the statistics are taken."""
LEAST_DEVIATION = 1e-3
"""Of a channel that is the same everywhere."""


def with_own_pixels(config: Config, train: Samples) -> Config:
    """The config with the numbers of these training images where it asks for them: what runs and checkpoints keep."""
    if config.encoder.pixel_statistics != "own":
        return config
    mean, std = pixel_statistics(train, config.data)
    found = {"mean": mean.tolist(), "std": std.tolist(), "pixel_statistics": "weights"}
    return override(config, {f"encoder.{key}": value for key, value in found.items()})


def pixel_statistics(
    train: Samples, config: DataConfig
) -> tuple[Float[np.ndarray, " channels"], Float[np.ndarray, " channels"]]:
    """Mean and deviation of each channel of pixels in 0..1, over all pixels of up to 2,000 images."""
    indices = np.linspace(0, len(train) - 1, min(MOST_IMAGES, len(train))).astype(np.int64)
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for images, _ in ordered_batches(train, indices, batch_size=100, config=config):
        pixels = images.cpu().numpy().astype(np.float64) / 255
        count += pixels[:, 0].size
        total = total + pixels.sum(axis=(0, 2, 3))
        squares = squares + (pixels**2).sum(axis=(0, 2, 3))
    mean = total / count
    return mean.round(6), np.sqrt((squares / count - mean**2).clip(min=LEAST_DEVIATION**2)).round(6)
