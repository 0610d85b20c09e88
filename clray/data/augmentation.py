"""SimCLR's random views, drawn for each view by itself and made for all views of a batch at once, on its device.

Randomness comes from torch's global generator, which the training loop seeds before every step. The same seed gives the
same views whatever the number of threads.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from clray.config.sections import AugmentationConfig, ViewSettings
from clray.data.colours import apply_colours, blur, colour_maps, solarize
from clray.data.crops import crop_points, draw_boxes, longest_side, sample, turn_points
from clray.data.feature_views import FeatureViews

MAX_DEGREES, MAX_SHIFT = 10.0, 0.1
"""Of `digits`: turned and shifted by at most so much, the shift as a share of the image."""
BLUR_DEVIATIONS = (0.1, 2.0)
"""In pixels, as SimCLR draws them."""


def build_augmentation(config: AugmentationConfig, image_size: int, num_channels: int) -> "Augmentation":
    """A module from float images [B, C, H, W] in 0..1 and V to V views of each, [V, B, C, size, size].

    The size is `config.view_size`, or else the width of the images. Vectors are [B, dim, 1, 1], and so are their views.
    """
    if config.name == "features":
        return FeatureViews(config)
    small = None
    if config.small_views:
        small = RandomViews(config, config.small_size(image_size), num_channels, crop_scale=config.small_scale)
    return RandomViews(config, config.size(image_size), num_channels, small=small)


class RandomViews(nn.Module):
    """Random views of each image.

    `simclr` follows the settings of the Cl-InfoNCE authors: crop, flip, colour jitter, grey, no blur (colour only for
    3 channels). `digits` turns and shifts before the crop, in place of flip and colour, which would change what a digit
    is. Blur and solarisation come last, where the config asks for them.

    Source: Chen et al., arXiv 2002.05709, appendix A; solarisation as in Grill et al., arXiv 2006.07733, appendix B;
    small views as in Caron et al., arXiv 2006.09882, section 3.3.
    """

    def __init__(
        self,
        config: AugmentationConfig,
        image_size: int,
        num_channels: int,
        *,
        crop_scale: tuple[float, float] | None = None,
        small: "RandomViews | None" = None,
    ) -> None:
        """Args:
        image_size: height and width of a view.
        crop_scale: smallest and largest area of a crop, as shares of the image, in place of those of each view.
        small: draws the small views.
        """
        super().__init__()
        self.config, self.image_size, self.crop_scale = config, image_size, crop_scale
        self.small: RandomViews | None = small
        self.is_digits = config.name == "digits"
        self.has_colour = not self.is_digits and num_channels == 3

    def forward(
        self, images: Float[Tensor, "batch channels height width"], num_views: int = 1, first: int = 0
    ) -> Float[Tensor, "views batch channels size size"]:
        """Args: first: number of the first of the views, by which settings that are lists choose."""
        settings = [self.config.of_view(number) for number in range(first, first + num_views)]
        cropped = self._crop(images, [self.crop_scale or (each.min_crop_scale, 1.0) for each in settings])
        changed = self._change(cropped.transpose(0, 1).flatten(0, 1), settings)
        views: Tensor = changed.unflatten(0, (num_views, -1))
        return views

    def _crop(self, images: Tensor, scales: list[tuple[float, float]]) -> Tensor:
        num_images, _, height, width = images.shape
        num_boxes, device = num_images * len(scales), images.device
        boxes = draw_boxes(num_boxes, height, width, scales=scales, device=device)
        flipped = _chance(num_boxes, 0.0 if self.is_digits else 0.5, device)
        points = crop_points(boxes, flipped, self.image_size, height, width)
        if self.is_digits:
            turn, right, down = 2 * torch.rand(3, num_boxes, device=device) - 1
            shifts = MAX_SHIFT * torch.stack([right, down], dim=1)
            points = turn_points(points, MAX_DEGREES * turn, shifts, height, width)
        points = points.unflatten(0, (num_images, len(scales)))
        return sample(images, points, shrink=longest_side(height, width, scales) / self.image_size)

    def _change(self, views: Tensor, settings: list[ViewSettings]) -> Tensor:
        """Colour, blur and solarisation of all views, of which those with the same settings stand together."""
        number, device = len(views) // len(settings), views.device
        has_blur = any(each.blur_probability > 0 for each in settings)
        has_solarized = any(each.solarize_probability > 0 for each in settings)
        colours, deviations, solarized = [], [], []
        for each in settings:
            if self.has_colour:
                colours.append(draw_colours(number, each, device))
            if has_blur:
                deviations.append(draw_deviations(number, each, device))
            if has_solarized:
                solarized.append(_chance(number, each.solarize_probability, device))
        if colours:
            views = apply_colours(views, *colour_maps(*map(torch.cat, zip(*colours, strict=True))))
        if deviations:
            views = blur(views, torch.cat(deviations), max(3, self.image_size // 20 * 2 + 1))
        return solarize(views, torch.cat(solarized)) if solarized else views


Augmentation = RandomViews | FeatureViews


def draw_colours(num_views: int, settings: ViewSettings, device: torch.device) -> tuple[Tensor, ...]:
    """Random arguments of `colour_maps`, one each for a view."""
    changes = settings.jitter_strength * (2 * torch.rand(4, num_views, device=device) - 1)
    changes = torch.where(_chance(num_views, settings.jitter_probability, device), changes, 0)
    brightness, contrast, saturation = (1 + changes[:3]).clamp(min=0)
    order = torch.rand(num_views, 4, device=device).argsort(dim=1)
    grey = _chance(num_views, settings.grayscale_probability, device)
    return brightness, contrast, saturation, changes[3] / 4, order, grey


def draw_deviations(num_views: int, settings: ViewSettings, device: torch.device) -> Float[Tensor, " n"]:
    """Random deviations of the blur, in pixels; 0 for a view that is not blurred."""
    low, high = BLUR_DEVIATIONS
    deviations = low + (high - low) * torch.rand(num_views, device=device)
    return torch.where(_chance(num_views, settings.blur_probability, device), deviations, 0)


def _chance(number: int, probability: float, device: torch.device) -> Tensor:
    return torch.rand(number, device=device) < probability


def to_float(
    images: UInt8[Tensor, "batch channels height width"] | Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """Pixels 0..255 as 0..1; vectors, which are floats already, as they are."""
    return images if images.is_floating_point() else images.float().div_(255)


@torch.no_grad()
def draw_views(
    augmentation: Augmentation,
    images: UInt8[Tensor, "batch channels height width"] | Float[Tensor, "batch channels height width"],
    num_views: int = 2,
) -> Float[Tensor, "views batch channels height width"]:
    """Independent random views of each image."""
    views: Tensor = augmentation(to_float(images), num_views)
    return views


@torch.no_grad()
def draw_small_views(
    augmentation: Augmentation,
    images: UInt8[Tensor, "batch channels height width"] | Float[Tensor, "batch channels height width"],
    *,
    first: int,
) -> Float[Tensor, "views batch channels height width"] | None:
    """Independent small views of each image, which come behind `first` others; None where there are none."""
    small = augmentation.small
    if small is None:
        return None
    views: Tensor = small(to_float(images), small.config.small_views, first)
    return views
