"""Views as a whole; their parts are in test_crops.py and test_colours.py."""

from collections.abc import Iterator

import pytest
import torch

from clray.config import parse_config
from clray.config.sections import AugmentationConfig
from clray.data.augmentation import build_augmentation, draw_small_views, draw_views
from clray.errors import UserError


def draw(images: torch.Tensor, num_views: int = 2, **settings: object) -> torch.Tensor:
    config = AugmentationConfig.model_validate(settings)
    return draw_views(build_augmentation(config, images.shape[-1], images.shape[1]), images, num_views)


@pytest.mark.parametrize(("name", "channels"), [("simclr", 3), ("simclr", 1), ("digits", 1), ("digits", 3)])
@pytest.mark.parametrize("options", [{}, {"blur_probability": 0.5, "solarize_probability": 0.5}])
def test_views_keep_the_shape_and_the_range(name: str, channels: int, options: dict[str, float]) -> None:
    images = torch.randint(256, (6, channels, 16, 16), dtype=torch.uint8)
    views = draw(images, name=name, **options)
    assert views.shape == (2, 6, channels, 16, 16)
    assert views.min() >= -1e-5
    assert views.max() <= 1 + 1e-5


def test_every_sample_and_every_view_is_drawn_anew() -> None:
    """The same image six times: twelve different views."""
    torch.manual_seed(0)
    images = torch.randint(256, (1, 3, 16, 16), dtype=torch.uint8).expand(6, -1, -1, -1)
    views = draw(images).flatten(0, 1)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 12


@pytest.mark.parametrize("name", ["simclr", "digits"])
def test_every_view_shows_its_own_image(name: str) -> None:
    images = torch.tensor([20, 60, 100, 140, 180, 220], dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
    views = draw(images, num_views=3, name=name, jitter_probability=0.0)
    torch.testing.assert_close(views, (images / 255).expand(3, -1, -1, -1, -1), rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["simclr", "digits"])
def test_a_white_image_gives_white_views(name: str) -> None:
    """Nothing is padded with black, however far a view is turned or shifted."""
    views = draw(torch.full((500, 1, 8, 8), 255, dtype=torch.uint8), name=name)
    torch.testing.assert_close(views, torch.ones_like(views))


def test_digits_are_turned_and_shifted_but_not_mirrored() -> None:
    """Of an image that is bright on its left, hardly a view is bright on its right."""
    images = torch.zeros(400, 1, 16, 16, dtype=torch.uint8)
    images[..., :8] = 255
    digits, simclr = (draw(images, name=name)[..., :8].mean(dim=(2, 3, 4)) > 0.5 for name in ("digits", "simclr"))
    assert digits.float().mean() > 0.8
    assert 0.4 < simclr.float().mean() < 0.6
    upright = torch.zeros(400, 1, 16, 16, dtype=torch.uint8)
    upright[..., 7:9] = 255
    rows = draw(upright, name="digits", min_crop_scale=1.0).argmax(dim=-1)[..., 0, [0, -1]].float()
    assert rows.diff(dim=-1).abs().max() >= 2


@pytest.fixture
def num_threads() -> Iterator[int]:
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["simclr", "digits"])
def test_the_same_seed_draws_the_same_views_on_any_number_of_threads(name: str, num_threads: int) -> None:
    images = torch.randint(256, (64, 3, 32, 32), dtype=torch.uint8)
    drawn = []
    for threads in (num_threads, 1, 2, 3):
        torch.set_num_threads(threads)
        torch.manual_seed(3)
        drawn.append(draw(images, name=name, blur_probability=0.5, solarize_probability=0.2))
    for other in drawn[1:]:
        assert torch.equal(drawn[0], other)
    assert not torch.equal(drawn[0], draw(images, name=name))


def crossed(size: int) -> torch.Tensor:
    """An image whose red rises to the right and whose green rises downwards, 400 times."""
    ramp = torch.linspace(0, 1, size)
    image = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.zeros(size, size)])
    return image.expand(400, -1, -1, -1)


@pytest.mark.parametrize("name", ["simclr", "swav", "digits"])
@pytest.mark.parametrize(
    ("image_size", "given", "size"), [(32, {}, 14), (224, {}, 96), (8, {}, 4), (32, {"small_view_size": 20}, 20)]
)
def test_small_views_have_a_size_of_their_own(name: str, image_size: int, given: dict[str, int], size: int) -> None:
    config = AugmentationConfig.model_validate({"name": name, "num_small_views": 3, "blur_probability": 0.5, **given})
    augmentation = build_augmentation(config, image_size, 3)
    images = torch.randint(256, (2, 3, image_size, image_size), dtype=torch.uint8)
    small = draw_small_views(augmentation, images, first=2)
    assert small.shape == (3, 2, 3, size, size)
    assert 0 <= small.min() <= small.max() <= 1 + 1e-5
    assert draw_views(augmentation, images).shape == (2, 2, 3, image_size, image_size)


def test_only_swav_has_small_views_unless_they_are_asked_for() -> None:
    numbers = [AugmentationConfig.model_validate({"name": name}).small_views for name in ("simclr", "digits", "swav")]
    assert numbers == [0, 0, 6]
    assert AugmentationConfig.model_validate({"name": "swav", "num_small_views": 2}).small_views == 2
    plain = build_augmentation(AugmentationConfig(), 8, 1)
    assert draw_small_views(plain, torch.zeros(2, 1, 8, 8), first=2) is None


@pytest.mark.parametrize(
    ("given", "low", "high"), [({}, 0.4 / 3, 0.4), ({"small_crop_scale": [0.05, 0.14]}, 0.05, 0.14)]
)
def test_small_views_show_a_small_part(given: dict[str, list[float]], low: float, high: float) -> None:
    """The red and green that a view spans tell how wide and high it is."""
    torch.manual_seed(0)
    config = AugmentationConfig.model_validate({"num_small_views": 4, "jitter_probability": 0.0, **given})
    config = config.model_copy(update={"grayscale_probability": 0.0})
    small = draw_small_views(build_augmentation(config, 64, 3), crossed(64), first=2).flatten(0, 1)
    # Centres of the outermost pixels are a pixel of the view apart from the borders of the box.
    spans = (small[:, :2].amax(dim=(2, 3)) - small[:, :2].amin(dim=(2, 3))) * (63 / 64) * (28 / 27)
    areas = spans.prod(dim=1)
    assert areas.min() > 0.85 * low
    assert areas.max() < 1.1 * high
    assert areas.mean().item() == pytest.approx((low + high) / 2, rel=0.05)


def test_small_views_leave_the_others_as_they_are() -> None:
    images = torch.randint(256, (4, 3, 32, 32), dtype=torch.uint8)
    drawn = []
    for number in (0, 3):
        torch.manual_seed(1)
        drawn.append(draw(images, num_small_views=number))
    assert torch.equal(*drawn)


@pytest.mark.parametrize("name", ["simclr", "swav"])
def test_each_view_has_a_pipeline_of_its_own(name: str) -> None:
    """BYOL's: the first view always blurred, the second sometimes solarised; the last value is that of small views."""
    torch.manual_seed(0)
    images = torch.full((2000, 3, 8, 8), 230, dtype=torch.uint8)
    images[:, :, ::2] = 200
    config = AugmentationConfig.model_validate(
        {
            "name": name,
            "min_crop_scale": [1.0, 0.05, 1.0],
            "jitter_probability": 0.0,
            "grayscale_probability": 0.0,
            "blur_probability": [1.0, 0.1, 0.0],
            "solarize_probability": [0.0, 0.2, 1.0],
            "small_crop_scale": [0.9, 1.0],
        }
    )
    augmentation = build_augmentation(config, 8, 3)
    first, second, third = draw_views(augmentation, images, 3)
    small = draw_small_views(augmentation, images, first=2)
    is_solarized = [(each < 0.5).all(dim=(1, 2, 3)).float().mean().item() for each in (first, second, third)]
    assert is_solarized == [0.0, pytest.approx(0.2, abs=0.03), 1.0]
    assert small is None or (small < 0.5).all()
    # What is not blurred and shows the whole image still has its stripes, 30 of 255 apart.
    stripes = [(each.amax(dim=(1, 2, 3)) - each.amin(dim=(1, 2, 3))) * 255 for each in (first, third)]
    assert stripes[0].mean() < 25
    assert stripes[1].min() > 29


def test_views_of_equal_settings_are_those_of_a_single_value() -> None:
    images = torch.randint(256, (16, 3, 16, 16), dtype=torch.uint8)
    drawn = []
    for scale, blur in ((0.3, 0.4), ([0.3, 0.3], [0.4])):
        torch.manual_seed(2)
        drawn.append(draw(images, min_crop_scale=scale, blur_probability=blur))
    assert torch.equal(*drawn)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"blur_probability": [0.5, 1.5]}, "augmentation.blur_probability must be less than or equal to 1; got"),
        ({"blur_probability": []}, "augmentation.blur_probability must hold a number for each view; got"),
        ({"blur_probability": "often"}, "augmentation.blur_probability must be a number; got 'often'"),
        ({"solarize_probability": [True]}, "augmentation.solarize_probability must be a number; got"),
        ({"min_crop_scale": [0.4, 0]}, "augmentation.min_crop_scale must be greater than 0; got"),
        ({"num_small_views": 101}, "augmentation.num_small_views must be less than or equal to 100; got 101"),
        ({"small_crop_scale": [0.4, 0.1]}, "augmentation.small_crop_scale must be [smallest, largest]; got [0.4, 0.1]"),
        ({"small_crop_scale": [0.4]}, "augmentation.small_crop_scale"),
        ({"name": "features", "num_small_views": 2}, "augmentation.num_small_views: vectors have no small views"),
    ],
)
def test_settings_that_no_view_can_have_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as refused:
        parse_config({"augmentation": settings})
    assert message in str(refused.value)


def test_views_smaller_than_the_image_are_crops_of_the_image_itself() -> None:
    """Of a fine chequerboard: in an image that was scaled first it would be grey."""
    torch.manual_seed(0)
    board = ((torch.arange(64)[:, None] + torch.arange(64)) % 2).float().expand(50, 1, 64, 64)
    settings = {"min_crop_scale": 0.06, "view_size": 16}
    config = AugmentationConfig.model_validate({**settings, "num_small_views": 2, "small_crop_scale": [0.006, 0.008]})
    augmentation = build_augmentation(config, 64, 1)
    views = draw_views(augmentation, board)
    assert views.shape == (2, 50, 1, 16, 16)
    small = draw_small_views(augmentation, board, first=2)
    assert small.shape == (2, 50, 1, 6, 6)
    # Boxes of 5 pixels or so, drawn on 6: the fields of the board stay apart.
    assert small.std(dim=(2, 3, 4)).min() > 0.1
    assert views.std(dim=(2, 3, 4)).max() > 0.2
    scaled = torch.nn.functional.interpolate(board, size=16, mode="area")
    assert scaled.std() < 1e-6
