from itertools import pairwise

import pytest
import torch
from torch import nn

from clray.config import parse_config
from clray.config.sections import EncoderConfig, HeadConfig
from clray.errors import UserError
from clray.model.encoder import ContrastiveModel, Outputs, build_encoder
from clray.model.heads import build_head


def outputs(size: int, channels: int = 1, **sections: dict) -> tuple[ContrastiveModel, Outputs]:
    tree = {"encoder": {"name": "small_cnn", "width": 4}, "head": {"hidden_dim": 16, "embedding_dim": 8}, **sections}
    model = ContrastiveModel(parse_config(tree), channels, 5)
    return model, model(torch.rand(2, channels, size, size))


@pytest.mark.parametrize(
    ("encoder", "channels", "size", "dim"),
    [
        ({"name": "small_cnn", "width": 4}, 1, 8, 16),
        ({"name": "small_cnn", "width": 8}, 3, 28, 32),
        ({"name": "resnet18"}, 3, 32, 512),
        ({"name": "resnet18", "small_image_stem": False}, 1, 64, 512),
        ({"name": "resnet50"}, 3, 32, 2048),
        ({"name": "vit_s16", "image_size": 32}, 3, 32, 384),
        ({"name": "vit_s16", "image_size": 48}, 1, 48, 384),
    ],
)
def test_embeddings_have_unit_length(encoder: dict, channels: int, size: int, dim: int) -> None:
    model, (h, z, second) = outputs(size, channels, encoder=encoder)
    assert h.shape == (2, dim) == (2, model.representation_dim)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2))
    assert second is None


def test_the_small_vision_transformer_has_the_published_size() -> None:
    """22 million parameters, of which the classifier, 384 x 1,000 and 1,000 biases, is left out."""
    encoder, _ = build_encoder(EncoderConfig(name="vit_s16"), 3)
    assert sum(each.numel() for each in encoder.parameters()) == 22_050_664 - 385_000


def user_encoder(num_channels: int) -> tuple[nn.Module, int]:
    return nn.Sequential(nn.Flatten(), nn.Linear(64 * num_channels, 7 * num_channels)), num_channels * 7


def test_an_encoder_of_the_users_is_imported_where_that_is_allowed() -> None:
    own = {"encoder": {"name": f"{__name__}:user_encoder"}}
    _, (h, z, _) = outputs(8, allow_user_modules=True, **own)
    assert h.shape == (2, 7)
    assert z.shape == (2, 8)
    with pytest.raises(UserError, match="allow it with allow_user_modules=true"):
        outputs(8, **own)
    with pytest.raises(UserError, match=r"encoder\.name must be one of small_cnn"):
        outputs(8, encoder={"name": "resnet19"})
    for name, reason in (("nowhere:f", "No module named"), (f"{__name__}:none", "no attribute")):
        with pytest.raises(UserError, match=reason):
            outputs(8, allow_user_modules=True, encoder={"name": name})


def test_bfloat16_agrees_with_float32_and_returns_float32() -> None:
    images = torch.rand(4, 3, 32, 32)
    results = []
    for precision in ("float32", "bfloat16"):
        torch.manual_seed(0)
        tree = {"encoder": {"name": "small_cnn", "width": 8}, "train": {"precision": precision}}
        results.append(ContrastiveModel(parse_config(tree), 3, 5).eval()(images))
    full, half = results
    assert half.h.dtype == half.z.dtype == torch.float32
    torch.testing.assert_close(half.z, full.z, atol=0.05, rtol=0)
    torch.testing.assert_close(half.z.norm(dim=1), torch.ones(4))
    assert not torch.equal(half.z, full.z)


def test_a_dual_head_embeds_twice() -> None:
    _, (_, z, second) = outputs(8, objective={"dual_head": True})
    assert second.shape == z.shape
    torch.testing.assert_close(second.norm(dim=1), torch.ones(2))
    assert not torch.equal(z, second)


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
def test_a_head_has_the_layers_and_norms_of_the_config(num_layers: int, norm: str) -> None:
    head = build_head(HeadConfig(num_layers=num_layers, norm=norm, hidden_dim=5, embedding_dim=3), 4)
    x = torch.randn(6, 4)
    linear = [each for each in head if isinstance(each, nn.Linear)]
    dims = [4, *[5] * (num_layers - 1), 3]
    assert [(each.in_features, each.out_features) for each in linear] == list(pairwise(dims))
    expected = x
    for number, layer in enumerate(linear, start=1):
        expected = expected @ layer.weight.T + (0 if layer.bias is None else layer.bias)
        if number < num_layers and norm == "batch":
            deviations = expected - expected.mean(0)
            expected = deviations / (deviations.square().mean(0) + 1e-5).sqrt()
        expected = expected.relu() if number < num_layers else expected
    torch.testing.assert_close(head(x), expected)


def test_a_classifier_has_a_logit_per_cluster_and_no_projection_head() -> None:
    _, (h, z, second) = outputs(8, objective={"name": "supervised"})
    assert second.shape == (2, 5)
    torch.testing.assert_close(z, h / h.norm(dim=1, keepdim=True))
