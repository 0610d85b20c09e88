"""Projection head: the representation h to the embedding z that the objective sees."""

from torch import nn

from clray.config.sections import HeadConfig


def build_head(config: HeadConfig, representation_dim: int) -> nn.Module:
    """A two-layer perceptron, as SimCLR's (Chen et al., arXiv 2002.05709); its output is not yet normalised."""
    return nn.Sequential(
        nn.Linear(representation_dim, config.hidden_dim),
        nn.ReLU(),
        nn.Linear(config.hidden_dim, config.embedding_dim),
    )
