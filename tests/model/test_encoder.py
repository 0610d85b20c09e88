import pytest
import torch

from clray.config import parse_config
from clray.model.encoder import ContrastiveModel, Outputs


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
    ],
)
def test_embeddings_have_unit_length(encoder: dict, channels: int, size: int, dim: int) -> None:
    model, (h, z, second) = outputs(size, channels, encoder=encoder)
    assert h.shape == (2, dim) == (2, model.representation_dim)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2))
    assert second is None


def test_a_dual_head_embeds_twice() -> None:
    _, (_, z, second) = outputs(8, objective={"dual_head": True})
    assert second.shape == z.shape
    torch.testing.assert_close(second.norm(dim=1), torch.ones(2))
    assert not torch.equal(z, second)


def test_a_classifier_has_a_logit_per_cluster_and_no_projection_head() -> None:
    _, (h, z, second) = outputs(8, objective={"name": "supervised"})
    assert second.shape == (2, 5)
    torch.testing.assert_close(z, h / h.norm(dim=1, keepdim=True))
