"""What a run starts from: an encoder that can be built and fed, and weights that fit it."""

import torch

from clray.config import Config
from clray.data.samples import Dataset
from clray.errors import UserError
from clray.model.encoder import build_encoder
from clray.model.weights import load_weights
from clray.training.state import with_pixels


def check_start(config: Config, data: Dataset) -> tuple[str, ...]:
    """Build the encoder, and where weights are given load them and embed an image; returns notes for the user.

    Raises:
        UserError: the encoder cannot be built or does not take the images; weights that cannot be used.
    """
    config = with_pixels(config)
    encoder, dim = build_encoder(config.encoder, data.num_channels)
    match = load_weights(encoder, config.encoder)
    settings, size = config.encoder, data.train.images.size
    if settings.mean is not None and size is not None:
        try:
            with torch.no_grad():
                h = encoder.eval()(torch.zeros(1, data.num_channels, *size))
        except Exception as error:  # whatever a model's code says of a size that does not suit it
            raise UserError(
                f"encoder.name={settings.name}: cannot embed images of {size[1]}x{size[0]} pixels "
                f"({' '.join(str(error).split())[:200]}); set encoder.image_size"
            ) from error
        if h.shape != (1, dim):
            raise UserError(f"encoder.name={settings.name}: gives {list(h.shape)} for one image, not [1, {dim}]")
    notes = []
    if match is not None:
        scaled = f"scaled to {settings.image_size} pixels" if settings.image_size else "not scaled"
        shown = (", ".join(f"{each:.3g}" for each in numbers or ()) for numbers in (settings.mean, settings.std))
        notes += [str(match), "images enter the encoder {}, with mean {} and deviation {}".format(scaled, *shown)]
    if match is None and config.clusters.source == "kmeans" and config.recluster.warmup_epochs == 0:
        notes.append(
            "recluster.warmup_epochs=0 with random weights: the first clusters follow colours and coarse shapes; "
            "encoder.weights gives better ones"
        )
    return tuple(notes)
