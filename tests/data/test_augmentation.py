import pytest
import torch

from clray.config.sections import AugmentationConfig
from clray.data.augmentation import build_augmentation, draw_views


@pytest.mark.parametrize(("name", "channels"), [("simclr", 3), ("simclr", 1), ("digits", 1)])
def test_views_keep_the_shape_and_the_range(name: str, channels: int) -> None:
    images = torch.randint(256, (6, channels, 16, 16), dtype=torch.uint8)
    views = draw_views(build_augmentation(AugmentationConfig(name=name), 16, channels), images)
    assert views.shape == (2, 6, channels, 16, 16)
    assert views.min() >= 0
    assert views.max() <= 1 + 1e-5


def test_every_sample_and_every_view_is_drawn_anew() -> None:
    """The same image six times: twelve different views."""
    torch.manual_seed(0)
    images = torch.randint(256, (1, 3, 16, 16), dtype=torch.uint8).expand(6, -1, -1, -1)
    views = draw_views(build_augmentation(AugmentationConfig(), 16, 3), images).flatten(0, 1)
    assert len({tuple(view.flatten().tolist()) for view in views}) == 12


def test_the_same_seed_draws_the_same_views() -> None:
    augmentation = build_augmentation(AugmentationConfig(), 8, 3)
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    first, second = (torch.manual_seed(3) and draw_views(augmentation, images) for _ in range(2))
    assert torch.equal(first, second)
