"""Random changes of colour, blur and solarisation of a batch of images, each image by parameters of its own.

Brightness, contrast, saturation, hue and grey are linear in an image's pixels and its mean colour. A chain of them is
therefore two 3x3 matrices an image, whatever their order:  y = D (x - m) + M m  with m the mean colour.
"""

import math
from functools import cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

LUMA = (0.299, 0.587, 0.114)
"""Share of red, green and blue in what a grey image shows (ITU-R BT.601), as torchvision takes it to three digits."""
_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
"""The colour space in which a change of hue is a turn about the axis of greys."""


def colour_maps(
    brightness: Float[Tensor, " n"],
    contrast: Float[Tensor, " n"],
    saturation: Float[Tensor, " n"],
    hue: Float[Tensor, " n"],
    order: Int[Tensor, "n 4"],
    grey: Bool[Tensor, " n"],
) -> tuple[Float[Tensor, "n 3 3"], Float[Tensor, "n 3 3"]]:
    """The matrices D and M of each image: of what differs from its mean colour, and of the mean colour.

    Args:
        brightness, contrast, saturation: factors, 1 for no change.
        hue: in turns, 0 for no change.
        order: which of the four, in the order of these arguments, comes first, second, third and last.
        grey: whether all ends in grey.

    As torchvision's ColorJitter and RandomGrayscale on images whose values stay within 0..1: it cuts values off after
    each change, here that is left to the end. Hue is a turn in YIQ, which keeps luma, where torchvision's in HSV keeps
    the largest channel.
    """
    eye, luma, across = _axes(hue.device)
    b, c, s, angles = (each[:, None, None] for each in (brightness, contrast, saturation, 2 * math.pi * hue))
    scaled, softened, saturated = b * eye, c * eye, s * eye + (1 - s) * luma
    turned = luma + angles.cos() * (eye - luma) + angles.sin() * across
    of_differences = torch.stack([scaled, softened, saturated, turned], dim=1)
    # Contrast alone treats the mean in another way: its luma stays.
    of_means = torch.stack([scaled, softened + (1 - c) * luma, saturated, turned], dim=1)
    steps = torch.cat([of_differences, of_means])
    steps = steps.gather(1, order.repeat(2, 1)[:, :, None, None].expand(-1, -1, 3, 3))
    maps = steps[:, 3] @ steps[:, 2] @ steps[:, 1] @ steps[:, 0]
    maps = torch.where(grey.repeat(2)[:, None, None], luma @ maps, maps)
    differences, means = maps.chunk(2)
    return differences, means


@cache
def _axes(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The identity, what makes an image grey, and a quarter turn of hue without the grey; kept on the device."""
    to_yiq = torch.tensor(_TO_YIQ, dtype=torch.float64)
    turn = to_yiq.new_tensor([[0, 0, 0], [0, 0, 1], [0, -1, 0]])
    across = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    luma = to_yiq.new_tensor(LUMA).expand(3, 3)
    eye, luma, across = (each.to(device, torch.float32) for each in (torch.eye(3), luma, across))
    return eye, luma, across


def apply_colours(
    images: Float[Tensor, "n 3 height width"],
    of_differences: Float[Tensor, "n 3 3"],
    of_means: Float[Tensor, "n 3 3"],
) -> Float[Tensor, "n 3 height width"]:
    """What `colour_maps` says of images in 0..1, cut off to 0..1."""
    pixels = images.flatten(2)
    means = pixels.mean(dim=2, keepdim=True)
    offsets = torch.bmm(of_means - of_differences, means)
    return torch.baddbmm(offsets, of_differences, pixels).clamp_(0, 1).view(images.shape)


def blur(
    images: Float[Tensor, "n channels height width"], deviations: Float[Tensor, " n"], size: int
) -> Float[Tensor, "n channels height width"]:
    """Gaussian blur, reflected at the border; a deviation of 0 leaves an image as it is.

    Args:
        deviations: of the Gaussian, in pixels.
        size: pixels of the kernel, odd.
    """
    offsets = torch.arange(size, device=images.device) - size // 2
    # With next to no deviation all weight is on the middle.
    kernels = torch.softmax(-0.5 * (offsets / deviations.clamp(min=1e-3)[:, None]) ** 2, dim=1)
    num_images, num_channels = images.shape[:2]
    kernels = kernels.repeat_interleave(num_channels, dim=0)[:, None, None, :]
    padded = F.pad(images, [size // 2] * 4, mode="reflect").flatten(0, 1)[None]
    groups = num_images * num_channels
    rows = F.conv2d(padded, kernels, groups=groups)
    return F.conv2d(rows, kernels.transpose(2, 3), groups=groups).view_as(images)


def solarize(
    images: Float[Tensor, "n channels height width"], chosen: Bool[Tensor, " n"]
) -> Float[Tensor, "n channels height width"]:  # fmt: skip
    """Invert what is brighter than half, in the chosen images."""
    return torch.where(chosen[:, None, None, None] & (images >= 0.5), 1 - images, images)
