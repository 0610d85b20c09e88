"""Colour, blur and solarisation beside torchvision's, parameter by parameter and by their distribution."""

import colorsys

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from clray.config.sections import AugmentationConfig
from clray.data.augmentation import build_augmentation
from clray.data.colours import apply_colours, blur, colour_maps, solarize

OPERATIONS = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)


def coloured(
    images: torch.Tensor,
    factors: torch.Tensor | None = None,
    hue: float = 0.0,
    order: torch.Tensor | None = None,
    *,
    grey: bool = False,
) -> torch.Tensor:
    num = len(images)
    factors = torch.ones(3, num) if factors is None else factors
    order = torch.arange(4).expand(num, -1) if order is None else order
    maps = colour_maps(*factors, torch.full((num,), hue), order, torch.full((num,), grey))
    return apply_colours(images, *maps)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.4])
@pytest.mark.parametrize("which", range(3))
def test_each_change_is_torchvisions(which: int, factor: float) -> None:
    images = torch.rand(5, 3, 8, 8)
    factors = torch.ones(3, 5)
    factors[which] = factor
    expected = torch.stack([OPERATIONS[which](image, factor) for image in images])
    torch.testing.assert_close(coloured(images, factors), expected, rtol=0, atol=2e-4)


def test_changes_in_any_order_are_torchvisions_where_nothing_is_cut_off() -> None:
    torch.manual_seed(0)
    images = 0.35 + 0.2 * torch.rand(60, 3, 8, 8)
    factors, order = 0.8 + 0.4 * torch.rand(3, 60), torch.rand(60, 4).argsort(dim=1)
    ours = coloured(images, factors, order=order)
    for image, own, steps, view in zip(images, factors.T, order, ours, strict=True):
        for step in steps.tolist():
            if step < 3:
                image = OPERATIONS[step](image, own[step].item())
        torch.testing.assert_close(view, image, rtol=0, atol=2e-4)


def test_grey_is_torchvisions_and_comes_last() -> None:
    images = torch.rand(5, 3, 8, 8)
    factors = torch.tensor([0.7, 1.0, 1.3]).expand(5, -1).T
    ours = coloured(images, factors, hue=0.05, grey=True)
    assert torch.equal(ours[:, 0], ours[:, 1])
    torch.testing.assert_close(coloured(images, grey=True), TF.rgb_to_grayscale(images, 3), rtol=0, atol=2e-4)


@pytest.mark.parametrize("hue", [-0.1, -0.05, 0.05, 0.1])
def test_hue_turns_colours_about_as_far_as_torchvisions(hue: float) -> None:
    """Within 0.06 of a turn by HSV's angle, 0.03 in the mean; luma stays, where in HSV the largest channel does."""
    torch.manual_seed(0)
    images = 0.4 + 0.2 * torch.rand(200, 3, 1, 1)
    images = images[(images.amax(1) - images.amin(1))[:, 0, 0] > 0.08]
    ours, theirs = coloured(images, hue=hue), TF.adjust_hue(images, hue)
    angles = [torch.tensor([colorsys.rgb_to_hsv(*view.flatten().tolist())[0] for view in v]) for v in (ours, theirs)]
    apart = (angles[0] - angles[1] + 0.5) % 1 - 0.5
    assert apart.abs().max() < 0.06
    assert apart.abs().mean() < 0.03
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    torch.testing.assert_close((ours * luma).sum(1), (images * luma).sum(1), rtol=0, atol=1e-5)


def test_a_whole_turn_of_hue_and_greys_change_nothing() -> None:
    images, greys = torch.rand(5, 3, 8, 8), torch.rand(5, 1, 8, 8).expand(-1, 3, -1, -1)
    torch.testing.assert_close(coloured(images, hue=1.0), images, rtol=0, atol=1e-5)
    torch.testing.assert_close(coloured(greys, hue=0.3), greys, rtol=0, atol=1e-5)


def test_jitter_is_distributed_as_torchvisions() -> None:
    """Mean, contrast, saturation and share of grey views of one image, of the whole chain but the crop."""
    torch.manual_seed(0)
    image = (0.2 + 0.6 * torch.rand(3, 6, 6)) * torch.tensor([1.0, 0.8, 0.5])[:, None, None]
    config = AugmentationConfig(min_crop_scale=1.0)
    ours = build_augmentation(config, 6, 3)(image.expand(20_000, -1, -1, -1))[0]
    chain = v2.Compose([v2.RandomApply([v2.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8), v2.RandomGrayscale(p=0.2)])
    theirs = torch.stack([chain(image) for _ in range(1_000)])
    quantiles = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95])
    for measure in (
        lambda views: views.mean(dim=(1, 2, 3)),
        lambda views: views.mean(dim=1).std(dim=(1, 2)),
        lambda views: (views.amax(1) - views.amin(1)).mean(dim=(1, 2)),
        lambda views: views[:, 0].mean(dim=(1, 2)) - views[:, 2].mean(dim=(1, 2)),
    ):
        own, other = measure(ours), measure(theirs)
        assert own.mean().item() == pytest.approx(other.mean().item(), abs=0.015)
        torch.testing.assert_close(own.quantile(quantiles), other.quantile(quantiles), rtol=0, atol=0.035)
    grey = [(views.amax(1) - views.amin(1)).amax(dim=(1, 2)) < 1e-5 for views in (ours, theirs)]
    assert grey[0].float().mean().item() == pytest.approx(0.2, abs=0.015)


@pytest.mark.parametrize("deviation", [0.4, 1.0, 2.0])
def test_blur_is_torchvisions(deviation: float) -> None:
    images = torch.rand(4, 3, 16, 16)
    deviations = torch.tensor([deviation, deviation, 0.0, deviation])
    ours = blur(images, deviations, 5)
    expected = TF.gaussian_blur(images, [5, 5], [deviation, deviation])
    torch.testing.assert_close(ours[[0, 1, 3]], expected[[0, 1, 3]], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours[2], images[2])


def test_solarisation_is_torchvisions() -> None:
    images = torch.rand(4, 3, 8, 8)
    chosen = torch.tensor([True, False, True, False])
    ours = solarize(images, chosen)
    torch.testing.assert_close(ours[chosen], TF.solarize(images[chosen], 0.5))
    assert torch.equal(ours[~chosen], images[~chosen])
