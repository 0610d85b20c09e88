"""The model: an encoder by name, from images to the representation h, and the heads that the objective needs."""

from functools import cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from clray.config import Config
from clray.config.sections import EncoderConfig
from clray.config.sections.model import TIMM
from clray.errors import UserError
from clray.model.heads import Prototypes, build_head
from clray.model.perceptron import UnitScale, build_mlp
from clray.model.pixels import OnPixels
from clray.model.timm_models import build_timm
from clray.user_code import import_named


def _small_cnn(width: int, num_channels: int) -> tuple[nn.Module, int]:
    """Three 3x3 convolutions, each doubling the width, the first two halving the resolution, then the mean."""

    def block(num_in: int, num_out: int, pool: bool) -> list[nn.Module]:
        layers = [nn.Conv2d(num_in, num_out, 3, padding=1, bias=False), nn.BatchNorm2d(num_out), nn.ReLU()]
        return [*layers, nn.MaxPool2d(2)] if pool else layers

    layers = [
        *block(num_channels, width, pool=True),
        *block(width, 2 * width, pool=True),
        *block(2 * width, 4 * width, pool=False),
    ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), 4 * width


def _resnet(name: str, num_channels: int, small_image_stem: bool) -> tuple[nn.Module, int]:
    from torchvision.models import get_model

    backbone = get_model(name, weights=None)
    if small_image_stem:
        backbone.conv1 = nn.Conv2d(num_channels, 64, 3, padding=1, bias=False)
        backbone.maxpool = nn.Identity()
    elif num_channels != 3:
        backbone.conv1 = nn.Conv2d(num_channels, 64, 7, stride=2, padding=3, bias=False)
    dim = backbone.fc.in_features
    backbone.fc = nn.Identity()
    return backbone, dim


def _vit_small(image_size: int, num_channels: int) -> tuple[nn.Module, int]:
    """ViT-S/16: 12 layers, 6 heads, 384 wide (Touvron et al., arXiv 2012.12877, table 1, where it is DeiT-S)."""
    from torchvision.models import VisionTransformer

    dim = 384
    backbone = VisionTransformer(image_size, patch_size=16, num_layers=12, num_heads=6, hidden_dim=dim, mlp_dim=4 * dim)
    if num_channels != 3:
        backbone.conv_proj = nn.Conv2d(num_channels, dim, 16, stride=16)
    backbone.heads = nn.Identity()
    return backbone, dim


def _of_user(name: str, num_channels: int) -> tuple[nn.Module, int]:
    built = import_named(name, "encoder.name")(num_channels)
    if not (isinstance(built, tuple) and len(built) == 2 and isinstance(built[0], nn.Module)):
        raise UserError(
            f"encoder.name={name}: expected (torch.nn.Module, dim of its output); got {type(built).__name__}"
        )
    return built


def build_encoder(config: EncoderConfig, num_channels: int) -> tuple[nn.Module, int]:
    """A module from float images [B, C, H, W] in 0..1 to h [B, dim], and dim; or from vectors [B, C, 1, 1] where it
    takes these. Its weights are random.

    Args:
        config: with `mean`, `std` and `image_size` where the encoder needs them; see `resolved_encoder`.

    Raises:
        UserError: a function of the user's that cannot be imported or returns something else; an unknown timm model.
    """
    if config.mean is None or config.std is None:
        return _backbone(config, num_channels)
    channels = 3 if num_channels == 1 else num_channels
    backbone, dim = _backbone(config, channels)
    mean, std = (_of_channels(numbers, channels) for numbers in (config.mean, config.std))
    return OnPixels(backbone, mean, std, config.image_size or 0), dim


def _of_channels(numbers: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One number for each channel: those of the config, or their mean where the channels are others."""
    return numbers if len(numbers) == channels else (sum(numbers) / len(numbers),) * channels


def _backbone(config: EncoderConfig, num_channels: int) -> tuple[nn.Module, int]:
    if config.name.startswith(TIMM):
        return build_timm(config.name, num_channels=num_channels, image_size=config.image_size or 0)
    if ":" in config.name:
        return _of_user(config.name, num_channels)
    if config.name == "none":
        return UnitScale(), num_channels
    if config.name == "mlp":
        return build_mlp(num_channels, config.hidden_dim)
    if config.name == "small_cnn":
        return _small_cnn(config.width, num_channels)
    if config.name == "vit_s16":
        return _vit_small(config.image_size or 224, num_channels)
    return _resnet(config.name, num_channels, config.small_image_stem)


PRODUCT_TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
"""By `train.precision`."""


class Outputs(NamedTuple):
    """What the model makes of a batch of images.

    Attributes:
        h: representation, float32 [n, h_dim].
        z: unit-length embedding, float32 [n, z_dim]; of the representation itself where there is no projection head.
        second: unit-length embedding of the second head, logits of the classifier, similarities to the prototypes, or
            None.
    """

    h: Tensor
    z: Tensor
    second: Tensor | None


class ContrastiveModel(nn.Module):
    """Encoder and heads in one module, so that one forward pass, and one DDP wrapper, serves all."""

    def __init__(self, config: Config, num_channels: int, num_clusters: int) -> None:
        """Reads no weights.

        Args:
            config: its encoder, head and objective decide what is built; see `build_encoder`.
            num_clusters: sizes a classifier.
        """
        super().__init__()
        self.encoder, self.representation_dim = build_encoder(config.encoder, num_channels)
        self.is_frozen = False
        self._trainable: list[nn.Parameter] = []
        self._keeps_norm_statistics = config.encoder.keep_norm_statistics
        self.classifies = config.objective.is_classification
        has_head = not self.classifies
        if config.encoder.name == "none":
            # The head is all there is to train, so its output is what was learned of the vectors: the representation.
            self.encoder = nn.Sequential(self.encoder, build_head(config.head, self.representation_dim))
            self.representation_dim, has_head = config.head.embedding_dim, False
        self.head = build_head(config.head, self.representation_dim) if has_head else nn.Identity()
        self.embedding_dim = config.head.embedding_dim if has_head else self.representation_dim
        self.second: nn.Module | None = None
        if self.classifies:
            self.second = nn.Linear(self.representation_dim, num_clusters)
        elif config.objective.name == "swav":
            self.second = Prototypes(self.embedding_dim, config.objective.num_prototypes)
        elif config.objective.dual_head:
            self.second = build_head(config.head, self.representation_dim)

        self.precision = config.train.precision
        self.to(memory_format=torch.channels_last)

    def forward(
        self,
        images: Float[Tensor, "n channels height width"],
        small: Float[Tensor, "m channels small_height small_width"] | None = None,
    ) -> Outputs:
        """Embed images, and behind them others of another size; in one call, as DDP expects of a step."""
        sizes = [images] if small is None else [images, small]
        sizes = [each.contiguous(memory_format=torch.channels_last) for each in sizes]
        product = product_type(self.precision, images.device)
        is_rounded = product != torch.float32
        with torch.autocast(images.device.type, product if is_rounded else None, enabled=is_rounded):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
                found = [self.encoder(each) for each in sizes]
            h = found[0] if small is None else torch.cat(found)
            z = self.head(h)
            # Prototypes compare embeddings, below and in float32.
            second = None if self.second is None or isinstance(self.second, Prototypes) else self.second(h)
        h, z, second = h.float(), F.normalize(z.float(), dim=1), None if second is None else second.float()
        if isinstance(self.second, Prototypes):
            second = self.second(z)
        elif second is not None and not self.classifies:
            second = F.normalize(second, dim=1)
        return Outputs(h, z, second)

    def train(self, mode: bool = True) -> "ContrastiveModel":
        """As any module; what keeps its batch-norm statistics stays in evaluation mode, as a frozen encoder does."""
        super().train(mode)
        if self.is_frozen:
            self.encoder.eval()
        elif self._keeps_norm_statistics:
            for module in self.encoder.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def freeze_encoder(self, frozen: bool) -> None:
        """Leave the encoder as it is, or train it again, from the next forward pass on."""
        if frozen and not self.is_frozen:
            self._trainable = [each for each in self.encoder.parameters() if each.requires_grad]
        self.is_frozen = frozen
        for parameter in self._trainable:
            parameter.requires_grad_(not frozen)
        self.train(self.training)


def uses_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether the model's products on this device are bfloat16; `auto` asks the hardware."""
    return product_type(precision, device) == torch.bfloat16


def product_type(precision: str, device: torch.device) -> torch.dtype:
    """In which the model multiplies on this device; `auto` asks the hardware, and every GPU has float16."""
    if precision != "auto":
        return PRODUCT_TYPES[precision]
    if _has_bfloat16(device.type):
        return torch.bfloat16
    return torch.float16 if device.type == "cuda" else torch.float32


@cache
def _has_bfloat16(device_type: str) -> bool:
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # oneDNN also emulates it, which is slower than float32.
    has_either = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return device_type == "cpu" and bool(has_either)
