"""`encoder.pixel_statistics: own`: pixels scaled by what the training images are, in a run and wherever it is used."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clray.config import Config, stored_config
from clray.data.images.array import ArrayImages
from clray.data.load import load_dataset
from clray.errors import UserError
from clray.training.checkpoint import read_checkpoint
from clray.training.export import load_model
from clray.training.pixel_statistics import pixel_statistics, with_own_pixels
from clray.training.start import prepare
from clray.training.workers.process import LocalSession
from tests.training.test_trainer import run

MakeConfig = Callable[..., Config]


def test_they_are_those_of_all_pixels_of_each_channel(tiny_config: MakeConfig) -> None:
    config = tiny_config()
    pixels = np.random.default_rng(0).integers(0, 256, (96, 3, 8, 8), dtype=np.uint8)
    pixels[:, 1], pixels[:, 2] = pixels[:, 1] // 4, 51
    train = replace(load_dataset(config.data).train, images=ArrayImages(pixels))
    mean, std = pixel_statistics(train, config.data)
    np.testing.assert_allclose(mean, (pixels / 255).mean(axis=(0, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(std[:2], (pixels / 255).std(axis=(0, 2, 3))[:2], atol=1e-6)
    assert (mean[2], std[2]) == (0.2, 0.001)


def test_a_run_keeps_them_for_whoever_uses_it(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(encoder={"pixel_statistics": "own"}, clusters={"source": "labels"}, train={"num_epochs": 1})
    data = load_dataset(config.data)
    mean, std = (each.tolist() for each in pixel_statistics(data.train, config.data))
    start = prepare(config, data)
    run(config, data, LocalSession(tmp_path, None, lambda _: None, torch.device("cpu")), start)
    checkpoint = read_checkpoint(tmp_path)
    kept = stored_config(checkpoint["config"], {}, tmp_path)
    assert (list(kept.encoder.mean or ()), list(kept.encoder.std or ())) == (mean, std)
    assert with_own_pixels(kept, data.train) is kept
    encoder, images = load_model(checkpoint, kept).eval().encoder, torch.rand(2, 1, 8, 8)
    scaled = (images.expand(-1, 3, -1, -1) - mean[0]) / std[0]
    torch.testing.assert_close(encoder(images), encoder.backbone(scaled))


@pytest.mark.parametrize(
    ("encoder", "message"),
    [({"mean": [0.5], "std": [0.5]}, "mean and std are given"), ({"name": "mlp"}, "takes vectors")],
)
def test_own_statistics_beside_others_are_refused(tiny_config: MakeConfig, encoder: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny_config(encoder={**encoder, "pixel_statistics": "own"})
