"""Projection head: the representation h to the embedding z that the objective sees."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clray.config.sections import HeadConfig


def build_head(config: HeadConfig, representation_dim: int) -> nn.Module:
    """A perceptron, of two layers as SimCLR's (Chen et al., arXiv 2002.05709) by default.

    Its output is not yet normalised. With `head.norm: batch` each hidden layer has batch normalisation in place of a
    bias, which that would take out again; the output layer has none.
    """
    layers: list[nn.Module] = []
    dim = representation_dim
    for _ in range(config.num_layers - 1):
        has_norm = config.norm == "batch"
        layers.append(nn.Linear(dim, config.hidden_dim, bias=not has_norm))
        layers += [nn.BatchNorm1d(config.hidden_dim), nn.ReLU()] if has_norm else [nn.ReLU()]
        dim = config.hidden_dim
    return nn.Sequential(*layers, nn.Linear(dim, config.embedding_dim))


class Prototypes(nn.Module):
    """Cosine similarities of unit-length embeddings to prototypes, which are trained with the model."""

    def __init__(self, dim: int, num_prototypes: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_prototypes, dim))

    def forward(self, z: Float[Tensor, "n dim"]) -> Float[Tensor, "n prototypes"]:
        return z @ F.normalize(self.weight, dim=1).T
