"""Encoders: images to the representation h.

Builds backbones by name; knows nothing of objectives.
"""

import torchvision
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clray.config import EncoderConfig, HeadConfig
from clray.model.heads import build_head


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
    backbone = torchvision.models.get_model(name, weights=None)
    if small_image_stem:
        backbone.conv1 = nn.Conv2d(num_channels, 64, 3, padding=1, bias=False)
        backbone.maxpool = nn.Identity()
    elif num_channels != 3:
        backbone.conv1 = nn.Conv2d(num_channels, 64, 7, stride=2, padding=3, bias=False)
    dim = backbone.fc.in_features
    backbone.fc = nn.Identity()
    return backbone, dim


def build_encoder(config: EncoderConfig, num_channels: int) -> tuple[nn.Module, int]:
    """A module from float images [B, C, H, W] to h [B, dim], and dim."""
    if config.name == "small_cnn":
        return _small_cnn(config.width, num_channels)
    return _resnet(config.name, num_channels, config.small_image_stem)


class ContrastiveModel(nn.Module):
    """Encoder and projection head in one module, so that one forward pass, and one DDP wrapper, serves both."""

    def __init__(self, encoder: EncoderConfig, head: HeadConfig, num_channels: int) -> None:
        super().__init__()
        self.encoder, self.representation_dim = build_encoder(encoder, num_channels)
        self.head = build_head(head, self.representation_dim)

    def forward(
        self, images: Float[Tensor, "n channels height width"]
    ) -> tuple[Float[Tensor, "n h_dim"], Float[Tensor, "n z_dim"]]:
        """The representation h and the unit-length embedding z."""
        h = self.encoder(images)
        return h, F.normalize(self.head(h), dim=1)
