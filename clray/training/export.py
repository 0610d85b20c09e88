"""A trained encoder for use elsewhere: its weights as safetensors, and embeddings of any images."""

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from clray.config import Config, override
from clray.config.sections import DataConfig, EncoderConfig
from clray.data.loaders import ordered_batches
from clray.data.samples import Samples
from clray.errors import UserError
from clray.model.encoder import ContrastiveModel
from clray.model.features import EMBEDDING_BATCH_SIZE, compute_features
from clray.model.pixels import OnPixels, backbone_of
from clray.training.checkpoint_form import Checkpoint
from clray.training.workers.gpus import device_beside


def load_model(checkpoint: Checkpoint, config: Config) -> ContrastiveModel:
    """The checkpoint's model, on the CPU.

    Raises:
        UserError: parts are missing, or the weights are not those of the model that the config describes.
    """
    try:
        num_channels, num_clusters = checkpoint["num_channels"], checkpoint["num_clusters"][0]
        config = _with_pixels_of(checkpoint, config)
        if type(num_channels) is not int or type(num_clusters) is not int or min(num_channels, num_clusters) < 1:
            raise ValueError("expected counts of channels and clusters")
        with torch.device("meta"):  # nothing is allocated for a size that the weights do not have
            _load(ContrastiveModel(config, num_channels, num_clusters), checkpoint["model"])
        model = ContrastiveModel(config, num_channels, num_clusters)
        _load(model, checkpoint["model"])
    except UserError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the checkpoint is damaged, or of another version of clray: {type(error).__name__}: {reason}"
        ) from error
    return model


def _pixels(settings: EncoderConfig, encoder: nn.Module) -> str:
    """What whoever feeds the exported weights does to pixels first."""
    if not isinstance(encoder, OnPixels):
        return "0..1, not normalised"
    mean, std = (list(each.flatten().tolist()) for each in (encoder.mean, encoder.std))
    scaled = f", scaled to {settings.image_size}" if settings.image_size else ""
    return f"0..1, normalised by mean {mean} and deviation {std}{scaled}"


def _with_pixels_of(checkpoint: Checkpoint, config: Config) -> Config:
    """The config with the pixels of the run's weights, which its checkpoints hold and its own config may not."""
    kept = checkpoint.get("config", {}).get("encoder", {})
    known = {
        key: kept[key] for key in ("mean", "std", "image_size") if key in kept and getattr(config.encoder, key) is None
    }
    return override(config, {f"encoder.{key}": value for key, value in known.items()})


def _load(model: ContrastiveModel, weights: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that copying to the meta device does nothing
        model.load_state_dict(weights)


def export_encoder(checkpoint: Checkpoint, config: Config, path: Path) -> dict[str, str]:
    """Write the encoder's `state_dict` as safetensors, and return the metadata written beside it.

    The metadata say how to build the encoder and feed it: `encoder` (the config's section), `num_channels`,
    `representation_dim`, `image_size` (null where it was that of the images) and `pixels`. The names of a ResNet's
    weights are torchvision's, those of a `timm/` model timm's. Where weights were given, `pixels` says how they are
    normalised and scaled.
    """
    model = load_model(checkpoint, config)
    weights = {name: value.contiguous() for name, value in backbone_of(model.encoder).state_dict().items()}
    settings = _with_pixels_of(checkpoint, config).encoder
    metadata = {
        "encoder": settings.model_dump_json(),
        "num_channels": str(checkpoint["num_channels"]),
        "representation_dim": str(model.representation_dim),
        "image_size": json.dumps(config.data.image_size),
        "pixels": "none: vectors of any scale"
        if config.data.name == "embeddings"
        else _pixels(settings, model.encoder),
        "objective": config.objective.model_dump_json(),
        "epoch": str(checkpoint["epoch"]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    save_file(weights, partial, metadata)
    partial.replace(path)
    return metadata


def embedded(
    model: ContrastiveModel,
    images: Samples,
    config: DataConfig,
    *,
    num_channels: int,
    layer: Literal["h", "z"],
    device: torch.device,
) -> Iterator[np.ndarray]:
    """h or z of every image, in order, batch by batch, float32 [B, dim].

    Args:
        num_channels: of the images that the model was trained on.
        device: where it embeds, to which the model moves.

    Raises:
        UserError: images of other channels.
    """
    if images.images.channels != num_channels:
        what = "images have {} channels" if images.images.has_pixels else "vectors have {} dimensions"
        raise UserError(f"data: the {what.format(images.images.channels)}, the encoder was trained on {num_channels}")
    batches = ordered_batches(images, np.arange(len(images)), batch_size=EMBEDDING_BATCH_SIZE, config=config)
    return (compute_features(model.to(device), [batch], device, layer)[0] for batch in batches)


def embed(
    checkpoint: Checkpoint, config: Config, images: Samples, path: Path, output: Literal["h", "z"]
) -> tuple[int, int]:
    """Write h or z of every image, in order, as float32 `.npy`; returns its shape.

    On a GPU where there is one, unless the run asked for none.

    Raises:
        UserError: as `embedded`.
    """
    model = load_model(checkpoint, config)
    parts = embedded(
        model,
        images,
        config.data,
        num_channels=checkpoint["num_channels"],
        layer=output,
        device=device_beside(config.train),
    )
    dim = model.representation_dim if output == "h" else model.embedding_dim
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    rows = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=(len(images), dim))
    start = 0
    for part in parts:
        rows[start : start + len(part)] = part
        start += len(part)
    rows.flush()
    partial.replace(path)
    return len(images), dim
