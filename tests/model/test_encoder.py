import pytest
import torch

from clray.config import EncoderConfig, HeadConfig
from clray.model.encoder import ContrastiveModel

HEAD = HeadConfig(hidden_dim=16, embedding_dim=8)


@pytest.mark.parametrize(
    ("encoder", "channels", "size", "dim"),
    [
        (EncoderConfig(name="small_cnn", width=4), 1, 8, 16),
        (EncoderConfig(name="small_cnn", width=8), 3, 28, 32),
        (EncoderConfig(name="resnet18"), 3, 32, 512),
        (EncoderConfig(name="resnet18", small_image_stem=False), 1, 64, 512),
        (EncoderConfig(name="resnet50"), 3, 32, 2048),
    ],
)
def test_embeddings_have_unit_length(encoder: EncoderConfig, channels: int, size: int, dim: int) -> None:
    model = ContrastiveModel(encoder, HEAD, channels)
    h, z = model(torch.rand(2, channels, size, size))
    assert h.shape == (2, dim) == (2, model.representation_dim)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2))
