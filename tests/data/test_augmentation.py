"""Views as a whole; their parts are in test_crops.py and test_colours.py."""

from collections.abc import Iterator

import pytest
import torch

from clray.config.sections import AugmentationConfig
from clray.data.augmentation import build_augmentation, draw_views


def draw(images: torch.Tensor, num_views: int = 2, **settings: object) -> torch.Tensor:
    config = AugmentationConfig.model_validate(settings)
    return draw_views(build_augmentation(config, images.shape[-1], images.shape[1]), images, num_views)


@pytest.mark.parametrize(("name", "channels"), [("simclr", 3), ("simclr", 1), ("digits", 1), ("digits", 3)])
@pytest.mark.parametrize("options", [{}, {"blur_probability": 0.5, "solarize_probability": 0.5}])
def test_views_keep_the_shape_and_the_range(name: str, channels: int, options: dict[str, float]) -> None:
    images = torch.randint(256, (6, channels, 16, 16), dtype=torch.uint8)
    views = draw(images, name=name, **options)
    assert views.shape == (2, 6, channels, 16, 16)
    assert views.min() >= 0
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
