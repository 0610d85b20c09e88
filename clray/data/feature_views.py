"""Random views of vectors, such as the features of a foundation model: noise, and values left out.

Scales no vector for good: what is relative to its size is relative to its own.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clray.config.sections import AugmentationConfig


class FeatureViews(nn.Module):
    """Random views of each vector: Gaussian noise on all of its values, then some of them set to 0.

    Source: the dropout of SimCSE (Gao et al., arXiv 2104.08821), there within a model, and the corrupted features
    of SCARF (Bahri et al., arXiv 2106.15147), there values of other samples.
    """

    small: None = None
    """Vectors have no small views."""

    def __init__(self, config: AugmentationConfig) -> None:
        super().__init__()
        self.noise, self.dropout = config.noise, config.dropout

    def forward(
        self, vectors: Float[Tensor, "batch dim height width"], num_views: int = 1
    ) -> Float[Tensor, "views batch dim height width"]:
        views = to_unit_scale(vectors).expand(num_views, *vectors.shape)
        if self.noise > 0:
            views = views + self.noise * torch.randn(views.shape, device=views.device)
        if self.dropout > 0:
            views = views * (torch.rand(views.shape, device=views.device) >= self.dropout)
        return views


def to_unit_scale(vectors: Float[Tensor, "batch dim ..."]) -> Float[Tensor, "batch dim ..."]:
    """The vectors, each divided by the root mean square of its values, so that its direction alone is left.

    A vector of zeros stays one.
    """
    # Squares of large values would be infinite in float32.
    vectors = vectors / vectors.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(vectors.dtype).tiny)
    return vectors / vectors.square().mean(dim=1, keepdim=True).sqrt().clamp(min=1e-12)
