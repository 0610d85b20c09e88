"""Random crops, flips, turns and shifts of a batch of images, each image by parameters of its own.

A crop is drawn and resampled as torchvision's `RandomResizedCrop` does, but for all images at once.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

NUM_ATTEMPTS = 10
"""Draws of a box before the largest central one is taken, as in torchvision."""
RATIO = (3 / 4, 4 / 3)
"""Width over height of a random box."""


def draw_boxes(
    num_boxes: int, height: int, width: int, *, scales: Sequence[tuple[float, float]], device: torch.device
) -> Float[Tensor, "n 4"]:
    """Random boxes within an image, in whole pixels: top, left, height, width.

    The area is uniform and the ratio log-uniform in 3/4..4/3; a box that exceeds the image is drawn again. After ten
    draws it is the largest central box of a ratio in that range.

    Args:
        scales: smallest and largest area, as shares of the image; the boxes take them in turns.

    Source: `get_params` of torchvision's RandomResizedCrop, whose boxes have the same distribution.
    """
    area, log_ratio = torch.rand(2, num_boxes, NUM_ATTEMPTS, device=device)
    if len(set(scales)) == 1:
        scales = scales[:1]
    parts = area.unflatten(0, (-1, len(scales))).unbind(dim=1)
    shares = [low + (high - low) * part for (low, high), part in zip(scales, parts, strict=True)]
    area = height * width * torch.stack(shares, dim=1).flatten(0, 1)
    ratio = torch.exp(math.log(RATIO[0]) + (math.log(RATIO[1]) - math.log(RATIO[0])) * log_ratio)
    heights, widths = (area / ratio).sqrt().round(), (area * ratio).sqrt().round()
    fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
    # Behind the drawn boxes stands the central one, which always fits.
    first = F.pad(fits.to(torch.uint8), (0, 1), value=1).argmax(dim=1, keepdim=True)
    heights = F.pad(heights, (0, 1), value=min(height, round(width / RATIO[0]))).gather(1, first)[:, 0]
    widths = F.pad(widths, (0, 1), value=min(width, round(height * RATIO[1]))).gather(1, first)[:, 0]
    is_central = first[:, 0] == NUM_ATTEMPTS
    down, right = torch.rand(2, num_boxes, device=device)
    return torch.stack(
        [_corner(height - heights, down, is_central), _corner(width - widths, right, is_central), heights, widths],
        dim=1,
    )


def longest_side(height: int, width: int, scales: Sequence[tuple[float, float]]) -> float:
    """The most that a side of a box of `draw_boxes` can have, in pixels."""
    area = max(high for _, high in scales) * height * width
    longest = math.sqrt(area * RATIO[1]) + 0.5
    # A box that always fits is never replaced by the central one.
    return longest if longest <= min(height, width) else max(height, width)


def _corner(free: Tensor, share: Tensor, is_central: Tensor) -> Tensor:
    """A whole number in 0..free, all as probable, or half of free."""
    return torch.where(is_central, torch.floor(free / 2), torch.floor(share * (free + 1)).minimum(free))


def crop_points(
    boxes: Float[Tensor, "n 4"], flipped: Bool[Tensor, " n"], size: int, height: int, width: int
) -> Float[Tensor, "n size size 2"]:
    """Where each pixel of a resized box lies in the image: x and y, -1 and 1 at the image's borders.

    Args:
        boxes: top, left, height, width, in pixels.
        flipped: whether the result is mirrored from left to right.
        size: height and width of the result.
        height, width: of the image.
    """
    steps = (torch.arange(size, device=boxes.device) + 0.5) / size
    top, left, box_height, box_width = boxes.T[:, :, None]
    across = torch.where(flipped[:, None], 1 - steps, steps)
    # No further than the centres of the box's outermost pixels: a crop does not know what lies around it.
    x = left + (across * box_width).clamp(min=0.5).minimum(box_width - 0.5)
    y = top + (steps * box_height).clamp(min=0.5).minimum(box_height - 0.5)
    x, y = x * (2 / width) - 1, y * (2 / height) - 1
    return torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=3)


def turn_points(
    points: Float[Tensor, "n size size 2"],
    degrees: Float[Tensor, " n"],
    shifts: Float[Tensor, "n 2"],
    height: int,
    width: int,
) -> Float[Tensor, "n size size 2"]:
    """Where points of an image that was turned about its centre and then shifted lie in the image before.

    Args:
        degrees: counter-clockwise as seen.
        shifts: to the right and down, as shares of width and height.
        height, width: of the image.
    """
    angles = torch.deg2rad(degrees)
    cosines, sines = angles.cos(), angles.sin()
    back = torch.stack([cosines, sines * width / height, -sines * height / width, cosines], dim=1)
    moved = points.flatten(1, 2) - 2 * shifts[:, None, :]
    return torch.bmm(moved, back.unflatten(1, (2, 2))).view_as(points)


def sample(
    images: Float[Tensor, "batch channels height width"],
    points: Float[Tensor, "batch views size size 2"],
    *,
    shrink: float,
) -> Float[Tensor, "batch views channels size size"]:
    """Each image at the points of each of its views, bilinear; the border continues outside the image.

    Args:
        points: as `crop_points` gives them.
        shrink: the most source pixels that a step between neighbouring points may span. Where it is more than 2, points
            are looked up in a copy of half the size (a mip level) as often as they span 2 pixels, against aliasing.
    """
    num_views = points.shape[1]
    # The views of an image below each other, so that images need not be repeated.
    grid = points.flatten(1, 2)
    result = _look_up(images, grid)
    if shrink > 2:
        height, width = images.shape[2:]
        steps = (points[:, :, 1:, 1:] - points[:, :, :-1, :-1]).abs().amax(dim=(2, 3))
        span = torch.maximum(steps[..., 0] * (width / 2), steps[..., 1] * (height / 2))
        span = span.repeat_interleave(points.shape[2], dim=1)[:, None, :, None]
        for level in range(1, int(math.log2(shrink)) + 1):
            images = F.interpolate(images, size=[-(-side // 2) for side in images.shape[2:]], mode="area")
            # Half a percent is left to rounding.
            result = torch.where(span > 0.995 * 2**level, _look_up(images, grid), result)
    views: Tensor = result.unflatten(2, (num_views, -1))
    return views.transpose(1, 2)


def _look_up(images: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
