"""A checkpoint's encoder, used without clray."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from clray.config import Config, override, parse_config
from clray.data.images.array import ArrayImages
from clray.data.samples import Samples
from clray.model.encoder import ContrastiveModel
from clray.training.export import embed, export_encoder
from clray.training.trained import TrainedEncoder
from clray.training.workers import gpus

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 3, 32, 32), dtype=np.uint8)


@pytest.fixture(scope="module")
def trained() -> tuple[dict, Config]:
    config = parse_config({"encoder": {"name": "resnet18"}, "train": {"precision": "float32"}})
    model = ContrastiveModel(config, 3, 10)
    return {"model": model.state_dict(), "num_channels": 3, "num_clusters": [10], "epoch": 1}, config


def test_the_weights_load_into_plain_torchvision_and_embed_alike(trained: tuple[dict, Config], tmp_path: Path) -> None:
    checkpoint, config = trained
    metadata = export_encoder(checkpoint, config, tmp_path / "encoder.safetensors")
    plain = torchvision.models.resnet18(weights=None)
    plain.conv1, plain.maxpool, plain.fc = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity(), nn.Identity()
    plain.load_state_dict(load_file(tmp_path / "encoder.safetensors"))
    with safe_open(tmp_path / "encoder.safetensors", "pt") as file:
        assert file.metadata() == metadata
    assert metadata["representation_dim"] == "512"

    images = Samples(ArrayImages(IMAGES), np.zeros(6, np.int64), {})
    assert embed(checkpoint, config, images, tmp_path / "h.npy", "h") == (6, 512)
    with torch.no_grad():
        expected = plain.eval()(torch.from_numpy(IMAGES).float() / 255)
    np.testing.assert_allclose(np.load(tmp_path / "h.npy"), expected.numpy(), atol=1e-4, rtol=1e-4)


def test_embeddings_z_have_unit_length(trained: tuple[dict, Config], tmp_path: Path) -> None:
    checkpoint, config = trained
    embed(checkpoint, config, Samples(ArrayImages(IMAGES), np.zeros(6, np.int64), {}), tmp_path / "z.npy", "z")
    np.testing.assert_allclose(np.linalg.norm(np.load(tmp_path / "z.npy"), axis=1), 1, atol=1e-5)


def test_a_run_that_asked_for_no_gpu_embeds_on_none(
    trained: tuple[dict, Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, config = trained
    monkeypatch.setattr(gpus, "num_visible_gpus", lambda: 1)
    images, without = Samples(ArrayImages(IMAGES), np.zeros(6, np.int64), {}), {"train.gpus_per_worker": 0}
    assert embed(checkpoint, override(config, without), images, tmp_path / "h.npy", "h") == (6, 512)
    model = ContrastiveModel(config, 3, 10)
    assert TrainedEncoder(model, override(config, without), 3).embed_device.type == "cpu"
    assert TrainedEncoder(model, config, 3).embed_device.type == "cuda"
