"""Encoders of vectors, such as the features of a foundation model, which themselves stay as they are."""

from torch import Tensor, nn

from clray.data.feature_views import to_unit_scale


class UnitScale(nn.Module):
    """Vectors [B, dim] or [B, dim, 1, 1] as [B, dim] of unit scale; see `to_unit_scale`."""

    def forward(self, vectors: Tensor) -> Tensor:
        """What the encoder sees."""
        return to_unit_scale(vectors.flatten(1))


def build_mlp(dim: int, hidden_dim: int) -> tuple[nn.Module, int]:
    """A perceptron of two layers with a batch normalisation between them, and the dimension of its output."""
    return nn.Sequential(
        UnitScale(),
        nn.Linear(dim, hidden_dim, bias=False),
        nn.BatchNorm1d(hidden_dim),
        nn.ReLU(),
        nn.Linear(hidden_dim, hidden_dim),
    ), hidden_dim
