"""What is drawn for a view beside what torchvision draws 20,000 times, and a whole view by the same parameters."""

from collections.abc import Callable

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as TF

from clray.config.sections import AugmentationConfig, ViewSettings
from clray.data import augmentation
from clray.data.augmentation import build_augmentation, draw_colours, draw_deviations, draw_views
from clray.data.crops import draw_boxes, longest_side

CPU, NUM_DRAWS = torch.device("cpu"), 20_000
QUANTILES = torch.tensor([0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98]).double()


def settings(**given: float) -> ViewSettings:
    return AugmentationConfig.model_validate(given).of_view(0)


def assert_same_distribution(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    """By mean, deviation and quantiles, within a few standard errors of 20,000 draws (at most 0.006 deviations)."""
    ours, theirs = ours.double(), theirs.double()
    deviation = theirs.std().item()
    assert ours.mean().item() == pytest.approx(theirs.mean().item(), abs=0.035 * deviation)
    assert ours.std().item() == pytest.approx(deviation, rel=0.03)
    torch.testing.assert_close(ours.quantile(QUANTILES), theirs.quantile(QUANTILES), rtol=0, atol=0.09 * deviation)


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.4, 1.0), (0.05, 0.14)])
def test_area_and_ratio_of_crops_are_torchvisions(scale: tuple[float, float]) -> None:
    """Of an image so large that pixels do not count; the last are SwAV's small views."""
    torch.manual_seed(0)
    side = 4096
    ours = draw_boxes(NUM_DRAWS, side, side, scales=[scale], device=CPU).double()
    transform, image = v2.RandomResizedCrop(8, scale=scale), torch.empty(1, side, side, device="meta")
    drawn = [transform.make_params([image]) for _ in range(NUM_DRAWS)]
    theirs = torch.tensor([[each[key] for key in ("top", "left", "height", "width")] for each in drawn]).double()
    measures: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda box: box[:, 2] * box[:, 3] / side**2,
        lambda box: (box[:, 3] / box[:, 2]).log(),
        lambda box: box[:, 0] / side,
        lambda box: box[:, 1] / side,
    ]
    for measure in measures:
        assert_same_distribution(measure(ours), measure(theirs))


def test_boxes_take_their_scales_in_turns_and_none_is_longer_than_is_told() -> None:
    torch.manual_seed(0)
    scales = [(0.5, 0.6), (0.05, 0.14), (0.3, 0.3)]
    boxes = draw_boxes(3 * 2000, 100, 90, scales=scales, device=CPU)
    shares = (boxes[:, 2] * boxes[:, 3] / 9000).unflatten(0, (-1, 3))
    for (low, high), own in zip(scales, shares.T, strict=True):
        assert own.min() > low - 0.02
        assert own.max() < high + 0.02
    for scale in scales:
        of_scale = draw_boxes(2000, 100, 90, scales=[scale], device=CPU)
        assert of_scale[:, 2:].max() <= longest_side(100, 90, [scale])
    assert longest_side(100, 90, [(0.05, 0.14)]) < 45


def test_colours_are_drawn_as_torchvisions() -> None:
    """Brightness, contrast, saturation and hue, each in any order, of the views whose colours are jittered."""
    torch.manual_seed(0)
    *ours, order, _ = draw_colours(NUM_DRAWS, settings(jitter_probability=1.0), CPU)
    transform = v2.ColorJitter(0.4, 0.4, 0.4, 0.1)
    drawn = [transform.make_params([]) for _ in range(NUM_DRAWS)]
    names = ("brightness_factor", "contrast_factor", "saturation_factor", "hue_factor")
    for own, name in zip(ours, names, strict=True):
        assert_same_distribution(own, torch.tensor([each[name] for each in drawn]))
    # Each of the 24 orders, 833 times.
    found, counts = order.unique(dim=0, return_counts=True)
    assert len(found) == 24
    assert 700 < counts.min() <= counts.max() < 970
    together = torch.corrcoef(torch.stack([*ours, order[:, 0].float()]))
    assert (together - torch.eye(5)).abs().max() < 0.03


@pytest.mark.parametrize("strength", [0.2, 0.8, 1.5])
def test_the_strength_of_the_jitter_scales_all_of_it(strength: float) -> None:
    """Factors end at 0, as torchvision's do."""
    torch.manual_seed(0)
    *ours, _, _ = draw_colours(NUM_DRAWS, settings(jitter_probability=1.0, jitter_strength=strength), CPU)
    low = max(0.0, 1 - strength)
    for factor in ours[:3]:
        assert factor.min().item() == pytest.approx(low, abs=0.01)
        assert factor.max().item() == pytest.approx(1 + strength, abs=0.01)
    assert ours[3].abs().max().item() == pytest.approx(strength / 4, abs=0.005)


def test_changes_are_made_as_often_as_is_asked() -> None:
    torch.manual_seed(0)
    asked = settings(jitter_probability=0.7, grayscale_probability=0.15, blur_probability=0.35)
    brightness, contrast, saturation, hue, _, grey = draw_colours(NUM_DRAWS, asked, CPU)
    is_plain = (brightness == 1) & (contrast == 1) & (saturation == 1) & (hue == 0)
    assert is_plain.float().mean().item() == pytest.approx(0.3, abs=0.012)
    # A view is jittered as a whole, or not at all.
    assert torch.equal(is_plain, brightness == 1)
    assert grey.float().mean().item() == pytest.approx(0.15, abs=0.012)
    deviations = draw_deviations(NUM_DRAWS, asked, CPU)
    assert (deviations > 0).float().mean().item() == pytest.approx(0.35, abs=0.012)


def test_blur_is_drawn_as_torchvisions() -> None:
    torch.manual_seed(0)
    transform = v2.GaussianBlur(23, sigma=(0.1, 2.0))
    theirs = torch.tensor([transform.make_params([])["sigma"][0] for _ in range(NUM_DRAWS)])
    assert_same_distribution(draw_deviations(NUM_DRAWS, settings(blur_probability=1.0), CPU), theirs)


def test_half_of_the_views_are_mirrored() -> None:
    torch.manual_seed(0)
    image = torch.linspace(0, 1, 8).expand(NUM_DRAWS, 1, 8, 8)
    (views,) = draw_views(build_augmentation(AugmentationConfig(), 8, 1), image, 1)
    is_mirrored = views[:, 0, 0, 0] > views[:, 0, 0, -1]
    assert is_mirrored.float().mean().item() == pytest.approx(0.5, abs=0.012)


def test_a_whole_view_is_torchvisions_by_the_same_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Crop, flip, colours in their order, grey, blur and solarisation, where no value is cut off and hue stays."""
    torch.manual_seed(0)
    drawn: dict[str, list[torch.Tensor]] = {}

    def recorded(name: str, change: Callable[..., object] = lambda found: found) -> None:
        draw = getattr(augmentation, name)

        def call(*arguments: object, **options: object) -> object:
            found = change(draw(*arguments, **options))
            drawn.setdefault(name, []).append(found)
            return found

        monkeypatch.setattr(augmentation, name, call)

    recorded("draw_boxes")
    recorded("_chance")
    recorded("draw_colours", lambda found: (*found[:3], torch.zeros_like(found[3]), *found[4:]))
    recorded("draw_deviations")
    images = 0.35 + 0.2 * torch.rand(40, 3, 32, 32)
    config = AugmentationConfig(jitter_strength=0.2, blur_probability=0.5, solarize_probability=0.3)
    views = draw_views(build_augmentation(config, 32, 3), images, 2)
    flipped, *_ = drawn["_chance"]
    solarized = [each for each in drawn["_chance"] if len(each) == 40][3::4]
    for v in range(2):
        *factors, _, order, grey = drawn["draw_colours"][v]
        for i in range(40):
            box = drawn["draw_boxes"][0].unflatten(0, (40, 2))[i, v].int().tolist()
            view = TF.resized_crop(images[i], *box, [32, 32], antialias=False)
            view = TF.horizontal_flip(view) if flipped[2 * i + v] else view
            for step in order[i].tolist():
                if step < 3:
                    adjust = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation)[step]
                    view = adjust(view, factors[step][i].item())
            view = TF.rgb_to_grayscale(view, 3) if grey[i] else view
            deviation = drawn["draw_deviations"][v][i].item()
            view = TF.gaussian_blur(view, [3, 3], [deviation, deviation]) if deviation else view
            # Whether a value at the threshold is inverted is up to rounding.
            near = (view - 0.5).abs() < 1e-3
            view = TF.solarize(view, 0.5) if solarized[v][i] else view
            torch.testing.assert_close(views[v, i][~near], view[~near], rtol=0, atol=5e-4)
    assert 5 < solarized[0].sum() + solarized[1].sum() < 60
