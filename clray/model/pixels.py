"""Pixels as an encoder's weights know them: normalised, scaled and with their channels, on the device."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class OnPixels(nn.Module):
    """An encoder behind the normalisation of its weights, so that whoever calls it gives pixels in 0..1.

    Grey images become images of three equal channels where the encoder has three.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], size: int) -> None:
        """Args: mean and std of each channel of the backbone; the size it takes, 0 for any."""
        super().__init__()
        self.backbone, self.size = backbone, size
        # The config holds them; the names of the weights stay those of the backbone.
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Float images [B, C, H, W] in 0..1 to h [B, dim]."""
        images = (images - self.mean) / self.std
        if self.size and tuple(images.shape[-2:]) != (self.size, self.size):
            images = F.interpolate(images, (self.size, self.size), mode="bilinear", antialias=True)
        h: Tensor = self.backbone(images.contiguous(memory_format=torch.channels_last))
        return h


def backbone_of(encoder: nn.Module) -> nn.Module:
    """The encoder without what is done to its pixels: what weights are loaded into, and what is exported."""
    return encoder.backbone if isinstance(encoder, OnPixels) else encoder
