"""Projection head: the representation h to the embedding z that the objective sees."""

from torch import nn

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
