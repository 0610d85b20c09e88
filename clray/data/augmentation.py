"""SimCLR's random views, drawn per sample and in batches on the training device.

Randomness comes from torch's global generator, which the training loop seeds at the start of every epoch.
"""

import kornia.augmentation as K
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from clray.config.sections import AugmentationConfig


def build_augmentation(config: AugmentationConfig, image_size: int, num_channels: int) -> nn.Module:
    """A module from float images [B, C, H, W] in 0..1 to views of the same shape.

    `simclr` follows the settings of the Cl-InfoNCE authors: crop, flip, colour jitter, grey, no blur (colour only for
    3 channels). `digits` shifts, turns and scales instead of flipping, which would change what a digit is.
    """
    crop = K.RandomResizedCrop((image_size, image_size), scale=(config.min_crop_scale, 1.0), ratio=(0.75, 4 / 3))
    if config.name == "digits":
        return nn.Sequential(K.RandomAffine(10.0, translate=(0.1, 0.1), p=1.0), crop)
    steps: list[nn.Module] = [crop, K.RandomHorizontalFlip()]
    if num_channels == 3:
        strength = config.jitter_strength
        steps += [
            K.ColorJitter(strength, strength, strength, strength / 4, p=config.jitter_probability),
            K.RandomGrayscale(p=config.grayscale_probability),
        ]
    return nn.Sequential(*steps)


def to_float(images: UInt8[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
    """Pixels 0..255 as 0..1."""
    return images.float().div_(255)


@torch.no_grad()
def draw_views(
    augmentation: nn.Module, images: UInt8[Tensor, "batch channels height width"], num_views: int = 2
) -> Float[Tensor, "views batch channels height width"]:
    """Independent random views of each image."""
    pixels = to_float(images)
    return torch.stack([augmentation(pixels) for _ in range(num_views)])
