"""SimCLR's random views, drawn for each view by itself and made for all views of a batch at once, on its device.

Randomness comes from torch's global generator, which the training loop seeds before every step. The same seed gives the
same views whatever the number of threads.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from clray.config.sections import AugmentationConfig
from clray.data.colours import apply_colours, blur, colour_maps, solarize
from clray.data.crops import crop_points, draw_boxes, sample, turn_points
from clray.data.feature_views import FeatureViews

MAX_DEGREES, MAX_SHIFT = 10.0, 0.1
"""Of `digits`: turned and shifted by at most so much, the shift as a share of the image."""
BLUR_DEVIATIONS = (0.1, 2.0)
"""In pixels, as SimCLR draws them."""


def build_augmentation(config: AugmentationConfig, image_size: int, num_channels: int) -> nn.Module:
    """A module from float images [B, C, H, W] in 0..1 and V to V views of each, [V, B, C, image_size, image_size].

    Vectors are [B, dim, 1, 1], and so are their views.
    """
    if config.name == "features":
        return FeatureViews(config)
    return RandomViews(config, image_size, num_channels)


class RandomViews(nn.Module):
    """Random views of each image.

    `simclr` follows the settings of the Cl-InfoNCE authors: crop, flip, colour jitter, grey, no blur (colour only for
    3 channels). `digits` turns and shifts before the crop, in place of flip and colour, which would change what a digit
    is. Blur and solarisation come last, where the config asks for them.

    Source: Chen et al., arXiv 2002.05709, appendix A; solarisation as in Grill et al., arXiv 2006.07733, appendix B.
    """

    def __init__(self, config: AugmentationConfig, image_size: int, num_channels: int) -> None:
        super().__init__()
        self.config, self.image_size = config, image_size
        self.is_digits = config.name == "digits"
        self.has_colour = not self.is_digits and num_channels == 3

    def forward(
        self, images: Float[Tensor, "batch channels height width"], num_views: int = 1
    ) -> Float[Tensor, "views batch channels size size"]:
        cropped = self._crop(images, num_views)
        return torch.stack([self._change(view) for view in cropped.unbind(dim=1)])

    def _crop(self, images: Tensor, num_views: int) -> Tensor:
        num_images, _, height, width = images.shape
        num_boxes, device = num_images * num_views, images.device
        boxes = draw_boxes(num_boxes, height, width, min_scale=self.config.min_crop_scale, device=device)
        flipped = _chance(num_boxes, 0.0 if self.is_digits else 0.5, device)
        points = crop_points(boxes, flipped, self.image_size, height, width)
        if self.is_digits:
            turn, right, down = 2 * torch.rand(3, num_boxes, device=device) - 1
            shifts = MAX_SHIFT * torch.stack([right, down], dim=1)
            points = turn_points(points, MAX_DEGREES * turn, shifts, height, width)
        points = points.unflatten(0, (num_images, num_views))
        return sample(images, points, shrink=max(height, width) / self.image_size)

    def _change(self, views: Tensor) -> Tensor:
        """Colour, blur and solarisation."""
        config, num_views, device = self.config, len(views), views.device
        if self.has_colour:
            changes = config.jitter_strength * (2 * torch.rand(4, num_views, device=device) - 1)
            changes = torch.where(_chance(num_views, config.jitter_probability, device), changes, 0)
            brightness, contrast, saturation = (1 + changes[:3]).clamp(min=0)
            order = torch.rand(num_views, 4, device=device).argsort(dim=1)
            grey = _chance(num_views, config.grayscale_probability, device)
            maps = colour_maps(brightness, contrast, saturation, changes[3] / 4, order, grey)
            views = apply_colours(views, *maps)
        if config.blur_probability > 0:
            low, high = BLUR_DEVIATIONS
            deviations = low + (high - low) * torch.rand(num_views, device=device)
            deviations = torch.where(_chance(num_views, config.blur_probability, device), deviations, 0)
            views = blur(views, deviations, max(3, self.image_size // 20 * 2 + 1))
        if config.solarize_probability > 0:
            views = solarize(views, _chance(num_views, config.solarize_probability, device))
        return views


def _chance(number: int, probability: float, device: torch.device) -> Tensor:
    return torch.rand(number, device=device) < probability


def to_float(
    images: UInt8[Tensor, "batch channels height width"] | Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Pixels 0..255 as 0..1; vectors, which are floats already, as they are."""
    return images if images.is_floating_point() else images.float().div_(255)


@torch.no_grad()
def draw_views(
    augmentation: nn.Module,
    images: UInt8[Tensor, "batch channels height width"] | Float[Tensor, "batch channels height width"],
    num_views: int = 2,
) -> Float[Tensor, "views batch channels height width"]:
    """Independent random views of each image."""
    views: Tensor = augmentation(to_float(images), num_views)
    return views
