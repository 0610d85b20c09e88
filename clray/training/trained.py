"""A run's encoder for use in one's own code: a module in evaluation mode, and the embeddings of any images.

Trains nothing, and needs neither Ray nor MLflow.
"""

import io
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from clray.config import Config, stored_config
from clray.config.plain import shown
from clray.data.augmentation import to_float
from clray.data.images.array import ArrayImages
from clray.data.images.decode import PixelRules, decode_image
from clray.data.images.vectors import VectorImages
from clray.data.load import check_files, load_images, reading_of
from clray.data.samples import Samples
from clray.errors import UserError
from clray.model.encoder import ContrastiveModel, Outputs
from clray.training.checkpoint import read_checkpoint
from clray.training.export import embedded, load_model
from clray.training.workers.gpus import device_beside


class HasFolder(Protocol):
    """The result of a run."""

    @property
    def folder(self) -> Path: ...


class TrainedEncoder(nn.Module):
    """An encoder with the weights of a run, in evaluation mode.

    Attributes:
        data: how the run read its images.
        num_channels: of the images it was trained on.
        representation_dim: of its output h.
        embed_device: where `embed` computes: a GPU where there is one, unless the run asked for none.
    """

    def __init__(self, model: ContrastiveModel, config: Config, num_channels: int) -> None:
        """Args: `config` is the run's."""
        super().__init__()
        self.model, self.data, self.num_channels = model, config.data, num_channels
        self.embed_device = device_beside(config.train)
        self.representation_dim = model.representation_dim
        self.eval()

    @property
    def takes_vectors(self) -> bool:
        """Whether it was trained on embeddings."""
        return self.data.name == "embeddings"

    def forward(self, images: Float[Tensor, "batch channels ..."]) -> Float[Tensor, "batch dim"]:
        """h of images in 0..1, as `transform` gives them; of embeddings also as [batch, dim]."""
        outputs: Outputs = self.model(images[:, :, None, None] if images.ndim == 2 else images)
        return outputs.h

    def transform(self, image: "Image.Image | np.ndarray | Path | str | bytes") -> Float[Tensor, "channels h w"]:
        """One image as the encoder saw its training images: decoded, resized, in 0..1, float32 [C, H, W].

        Args:
            image: a Pillow image, its encoded bytes, its file, or pixels as uint8 [H, W] or [H, W, 3]; for an encoder
                of embeddings a vector, floats [dim].

        Raises:
            UserError: it cannot be read, or has other channels than the encoder was trained on.
        """
        if self.takes_vectors:
            return _as_vectors(np.asarray(image)[None], self.num_channels)[0]
        return to_float(torch.tensor(_decode(image, PixelRules.of(self.data), self.num_channels)))


def place_of(run: HasFolder | Path | str, name: str = "run") -> Path:
    """Where a run lies; raises UserError, with the argument's name, for what names none."""
    place = getattr(run, "folder", run)
    if not isinstance(place, str | Path):
        raise UserError(
            f"{name}: expected a result of clray.train, or the path of a run or checkpoint; got {shown(run)}"
        )
    return Path(place)


def load_encoder(run: HasFolder | Path | str, *, allow_user_modules: bool = False) -> TrainedEncoder:
    """The encoder of a run or trial.

    Example:
        >>> encoder = clray.load_encoder("outputs/digits/trials/0003")
        >>> h = encoder(encoder.transform("photo.png")[None])

    Args:
        run: a result of `train`, a run's folder (such as `SweepResult.best`), or a checkpoint file.
        allow_user_modules: import `encoder.name: module:function` where the run was trained with one.

    Raises:
        UserError: there is no checkpoint, or it cannot be read.
    """
    path = place_of(run)
    if not path.exists():
        raise UserError(f"{path}: no such checkpoint; give a checkpoint.pt or the folder of a run")
    checkpoint = read_checkpoint(path)
    overrides = {"allow_user_modules": True} if allow_user_modules else {}
    config = stored_config(checkpoint.get("config"), overrides, path)
    return TrainedEncoder(load_model(checkpoint, config), config, checkpoint["num_channels"])


class Embeddings(np.ndarray):
    """Embeddings of images, float32 [N, dim], with the `names` of their rows; a slice is a plain array's."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, vectors: np.ndarray, names: tuple[str, ...]) -> "Embeddings":
        """The vectors, viewed with the names of their rows."""
        named = vectors.view(cls)
        named.names = names
        return named

    def __array_finalize__(self, source: Any) -> None:
        same = isinstance(source, Embeddings) and source.shape == self.shape
        self.names = getattr(source, "names", ()) if same else ()


def embed(
    encoder: TrainedEncoder, data: Path | str | np.ndarray, *, layer: Literal["h", "z"] = "h"
) -> Embeddings:  # fmt: skip
    """Embed every image, in order, on `encoder.embed_device`.

    Example:
        >>> h = clray.embed(encoder, "photos/")
        >>> h.shape, h.names[0]

    Args:
        encoder: from `load_encoder`.
        data: a Parquet file or folder of them, a CSV, a folder of images, or pixels as uint8 [N, C, H, W]; for an
            encoder of embeddings a `.npy` or Parquet file, or floats [N, dim].
        layer: the representation h, or the projection head's z.

    Raises:
        UserError: images that cannot be read, or of other channels than the encoder was trained on.
    """
    if layer not in ("h", "z"):
        raise UserError(f"layer: expected h or z; got {layer!r}")
    if not isinstance(encoder, TrainedEncoder):
        raise UserError(f"encoder: expected what clray.load_encoder gives; got {shown(encoder)}")
    if not isinstance(data, str | Path | np.ndarray):
        raise UserError(f"data: expected a path, or pixels as a uint8 array [N, C, H, W]; got {shown(data)}")
    config = encoder.data
    if isinstance(data, np.ndarray):
        images = (_vector_samples if encoder.takes_vectors else _as_samples)(data, encoder.num_channels)
    else:
        config = reading_of(config, Path(data))
        check_files(config)
        images = load_images(config)
    parts = embedded(
        encoder.model, images, config, num_channels=encoder.num_channels, layer=layer, device=encoder.embed_device
    )
    return Embeddings.of(np.concatenate(list(parts)), tuple(images.names))


def _as_samples(pixels: np.ndarray, num_channels: int) -> Samples:
    if pixels.ndim != 4 or pixels.dtype != np.uint8 or pixels.shape[1] != num_channels or not len(pixels):
        wanted = f"uint8 [N, {num_channels}, H, W]"
        raise UserError(f"data: expected images as {wanted}; got {pixels.dtype} {list(pixels.shape)}")
    numbers = np.arange(len(pixels), dtype=np.int32)
    return Samples(ArrayImages(np.ascontiguousarray(pixels)), numbers, {}, tuple(map(str, numbers)))


def _vector_samples(values: np.ndarray, dim: int) -> Samples:
    vectors = _as_vectors(values, dim).flatten(1).numpy()
    numbers = np.arange(len(vectors), dtype=np.int32)
    images = VectorImages(vectors, np.arange(len(vectors)), (("array in memory", 0),))
    return Samples(images, numbers, {}, tuple(map(str, numbers)))


def _as_vectors(values: np.ndarray, dim: int) -> Float[Tensor, "batch dim 1 1"]:
    if values.ndim != 2 or values.dtype.kind != "f" or values.shape[1] != dim or not len(values):
        raise UserError(f"data: expected vectors as floats [N, {dim}]; got {values.dtype} {list(values.shape)}")
    return torch.tensor(values.astype(np.float32))[:, :, None, None]


def _decode(image: "Image.Image | np.ndarray | Path | str | bytes", rules: PixelRules, channels: int) -> np.ndarray:
    try:
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        if isinstance(image, Image.Image):
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            image = buffer.getvalue()
        decoded = decode_image(Path(image) if isinstance(image, str) else image, rules)
    except (ValueError, OSError, TypeError) as error:
        raise UserError(f"image: cannot be read ({error})") from error
    if channels == 1:
        decoded = decoded[:1] if np.array_equal(decoded[0], decoded[1]) else decoded
    if len(decoded) != channels:
        raise UserError(f"image: it has {len(decoded)} channels, the encoder was trained on {channels}")
    return decoded
