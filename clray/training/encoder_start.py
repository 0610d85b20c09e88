"""The model that a run starts from: its encoder built, with weights that fit it, and able to take the images."""

import torch

from clray.config import Config
from clray.data.samples import Dataset
from clray.errors import UserError
from clray.model.encoder import ContrastiveModel
from clray.model.weights import Match, load_weights, resolved_encoder
from clray.seeding import derive_seed


def with_pixels(config: Config) -> Config:
    """The config that a run keeps: with the pixels of its weights, so that its checkpoints need these no more.

    Raises:
        UserError: as `resolved_encoder`.
    """
    return config.model_copy(update={"encoder": resolved_encoder(config)})


def fresh_model(config: Config, num_channels: int, num_clusters: int) -> ContrastiveModel:
    """The model that a run starts from, on the CPU; what is random of it depends on the run seed alone.

    Raises:
        UserError: an encoder that cannot be built, or weights that cannot be used.
    """
    return matched_model(config, num_channels, num_clusters)[0]


def matched_model(config: Config, num_channels: int, num_clusters: int) -> tuple[ContrastiveModel, Match | None]:
    """As `fresh_model`, with what of it came from a file."""
    config = with_pixels(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        model = ContrastiveModel(config, num_channels, num_clusters)
    return model, load_weights(model.encoder, config.encoder)


def is_plain(config: Config) -> bool:
    """Whether the encoder is one of clray's with random weights, which can always be built."""
    encoder = with_pixels(config).encoder
    return encoder.mean is None and encoder.weights is None and ":" not in encoder.name


def check_encoder(config: Config, data: Dataset, model: ContrastiveModel, match: Match | None) -> tuple[str, ...]:
    """What the user should know of the start, once an image has been embedded where weights bring a size of their own.

    Args:
        config: as `with_pixels` gives it.

    Raises:
        UserError: the encoder does not take the images.
    """
    settings, size = config.encoder, data.train.images.size
    if size is not None:
        side, has_small = config.augmentation.small_size(size[1]), config.augmentation.small_views > 0
        sizes = [*([size] if settings.mean is not None else []), *([(side, side)] if has_small else [])]
        for each in sizes:
            _try_size(config, model, data.num_channels, each)
    return start_notes(config, match)


def _try_size(config: Config, model: ContrastiveModel, num_channels: int, size: tuple[int, int]) -> None:
    """Raise UserError unless the encoder takes images of this height and width."""
    name, was_training = config.encoder.name, model.training
    try:
        with torch.no_grad():
            h = model.eval().encoder(torch.zeros(1, num_channels, *size))
    except Exception as error:  # whatever a model's code says of a size that does not suit it
        raise UserError(
            f"encoder.name={name}: cannot embed images of {size[1]}x{size[0]} pixels "
            f"({' '.join(str(error).split())[:200]}); set encoder.image_size"
        ) from error
    model.train(was_training)
    if h.shape != (1, model.representation_dim):
        raise UserError(
            f"encoder.name={name}: gives {list(h.shape)} for one image, not {[1, model.representation_dim]}"
        )


def start_notes(config: Config, match: Match | None) -> tuple[str, ...]:
    """What the user should know of the start: where its weights come from, and what its first clusters are of."""
    settings, notes = config.encoder, []
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
