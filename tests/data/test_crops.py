"""Crops beside torchvision's, box by box and by their distribution."""

import pytest
import torch
from torch.nn import functional as F
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from clray.data.crops import crop_points, draw_boxes, sample, turn_points

CPU = torch.device("cpu")


def resized(images: torch.Tensor, boxes: torch.Tensor, flipped: torch.Tensor, size: int) -> torch.Tensor:
    """One view of each image."""
    height, width = images.shape[2:]
    points = crop_points(boxes, flipped, size, height, width)
    return sample(images, points[:, None], shrink=max(height, width) / size)[:, 0]


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 32), (8, 8, 8), (20, 31, 24)])
def test_a_crop_is_torchvisions(height: int, width: int, size: int) -> None:
    torch.manual_seed(0)
    images = torch.rand(40, 3, height, width)
    boxes = draw_boxes(40, height, width, scales=[(0.2, 1.0)], device=CPU)
    flipped = torch.rand(40) < 0.5
    ours = resized(images, boxes, flipped, size)
    for image, box, flip, view in zip(images, boxes.int().tolist(), flipped, ours, strict=True):
        expected = TF.resized_crop(image, *box, [size, size], antialias=False)
        torch.testing.assert_close(view, TF.horizontal_flip(expected) if flip else expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("side", [96, 130, 256])
def test_a_crop_that_shrinks_is_antialiased(side: int) -> None:
    """Of noise, torchvision's antialiased crop leaves little; without antialiasing most of its deviation stays."""
    torch.manual_seed(0)
    images, boxes = torch.rand(8, 1, side, side), torch.tensor([[0, 0, side, side]] * 8).float()
    ours = resized(images, boxes, torch.zeros(8, dtype=torch.bool), 32)
    expected = TF.resize(images, [32, 32], antialias=True)
    aliased = TF.resize(images, [32, 32], antialias=False)
    assert (ours - expected).square().mean() < 0.5 * (aliased - expected).square().mean()
    smooth = F.interpolate(torch.rand(8, 1, 5, 5), size=(side, side), mode="bicubic")
    ours, expected = resized(smooth, boxes, torch.zeros(8, dtype=torch.bool), 32), TF.resize(smooth, [32, 32])
    torch.testing.assert_close(ours, expected, rtol=0, atol=0.05)


def test_views_of_an_image_that_shrink_unlike_take_levels_of_their_own() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 128, 128)
    boxes = torch.tensor([[0, 0, 128, 128], [5, 9, 20, 20]]).float()
    points = crop_points(boxes, torch.zeros(2, dtype=torch.bool), 32, 128, 128)[None]
    whole, part = sample(image, points, shrink=4)[0]
    torch.testing.assert_close(whole, F.avg_pool2d(image[0], 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(part, TF.resized_crop(image[0], 5, 9, 20, 20, [32, 32], antialias=False))


@pytest.mark.parametrize(("height", "width", "scale"), [(32, 32, 0.08), (32, 32, 0.4), (60, 20, 0.4), (20, 64, 0.9)])
def test_boxes_are_distributed_as_torchvisions(height: int, width: int, scale: float) -> None:
    torch.manual_seed(0)
    ours = draw_boxes(20_000, height, width, scales=[(scale, 1.0)], device=CPU).double()
    transform, image = v2.RandomResizedCrop(8, scale=(scale, 1.0)), torch.empty(1, height, width)
    drawn = (transform.make_params([image]) for _ in range(2_000))
    theirs = torch.tensor([[p["top"], p["left"], p["height"], p["width"]] for p in drawn]).double()
    assert (ours[:, :2] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= height).all()
    assert (ours[:, 1] + ours[:, 3] <= width).all()
    quantiles = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95]).double()
    for measure in (
        lambda box: box[:, 2] * box[:, 3] / (height * width),
        lambda box: (box[:, 3] / box[:, 2]).log(),
        lambda box: box[:, 0] / height,
        lambda box: box[:, 1] / width,
    ):
        own, other = measure(ours), measure(theirs)
        assert own.mean().item() == pytest.approx(other.mean().item(), abs=0.02)
        assert own.std().item() == pytest.approx(other.std().item(), abs=0.02)
        torch.testing.assert_close(own.quantile(quantiles), other.quantile(quantiles), rtol=0, atol=0.06)


@pytest.mark.parametrize(("degrees", "right", "down"), [(10.0, 0, 0), (-7.0, 0, 0), (0.0, 3, -2), (90.0, 0, 0)])
def test_a_turn_and_a_shift_are_torchvisions(degrees: float, right: int, down: int) -> None:
    """Away from the border, where torchvision puts black."""
    torch.manual_seed(0)
    image = F.interpolate(torch.rand(1, 1, 4, 6), size=(24, 36), mode="bicubic")
    points = crop_points(torch.tensor([[0, 0, 24, 36.0]]), torch.tensor([False]), 24, 24, 36)
    turned = turn_points(points, torch.tensor([degrees]), torch.tensor([[right / 36, down / 24]]), 24, 36)
    ours = sample(image, turned[:, None], shrink=1.5)[:, 0]
    moved = TF.affine(image, -degrees, [right, down], 1.0, [0.0], interpolation=v2.InterpolationMode.BILINEAR)
    seen = TF.affine(
        torch.ones_like(image), -degrees, [right, down], 1.0, [0.0], interpolation=v2.InterpolationMode.BILINEAR
    )
    expected, inside = (TF.resize(each, [24, 24], antialias=False) for each in (moved, seen))
    torch.testing.assert_close(ours[inside > 0.999], expected[inside > 0.999], rtol=0, atol=0.02)
    assert (inside > 0.999).float().mean() > 0.5
