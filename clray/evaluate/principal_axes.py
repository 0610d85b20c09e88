"""Samples in their own principal axes: few samples of many dimensions get small, and curvature all but diagonal.

Knows neither labels nor classifiers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

NEGLIGIBLE = 1e-5
"""Below this share of the largest deviation the direction of an axis is rounding, and the axis is left empty."""
PIECE_ROWS = 1 << 14
"""Samples that are turned at once."""


@dataclass(frozen=True)
class PrincipalAxes:
    """Sets of samples, each about its mean and in its own axes.

    The weights that minimise a loss of the scores and a penalty on their norm lie in the span of the samples (Kimeldorf
    and Wahba, J. Math. Anal. Appl. 33, 1971), and a rotation leaves the norm as it is. So the minimum found here is
    that of the samples as they were.

    Attributes:
        x: with a last column of ones. rank is the least of n and dim.
        basis: the axes, as columns.
    """

    x: Float[Tensor, "problems n rank1"]
    basis: Float[Tensor, "problems dim rank"]
    mean: Float[Tensor, "problems 1 dim"]

    def of(self, problems: Sequence[int]) -> "PrincipalAxes":
        return PrincipalAxes(*(each[problems] for each in (self.x, self.basis, self.mean)))

    def back(self, weights: Float[Tensor, "problems lanes rank1 outputs"]) -> Tensor:
        """Weights of the axes as weights of the dimensions, [problems, lanes, dim1, outputs]."""
        turned = self.basis[:, None] @ weights[:, :, :-1]
        return torch.cat([turned, weights[:, :, -1:] - self.mean[:, None] @ turned], dim=2)


def to_principal_axes(x: Float[Tensor, "problems n dim1"]) -> PrincipalAxes:
    """Turn each set of samples into its axes.

    Args:
        x: the last column is 1, or in a row that fills up a smaller set 0, as is all of it. It is overwritten where
            there are as many samples as dimensions, so that no second copy is held.
    """
    ones, h = x[..., -1:], x[..., :-1]
    mean = h.sum(1, keepdim=True) / ones.sum(1, keepdim=True).clamp(min=1)
    h.addcmul_(ones, mean, value=-1)
    num_rows, dim = h.shape[1:]
    if num_rows < dim:
        wide = h.double()
        squares, left = torch.linalg.eigh(wide @ wide.mT)
        lengths = squares.clamp(min=0).sqrt()
        inverse = torch.where(lengths > NEGLIGIBLE * lengths[:, -1:], 1 / lengths, 0)
        basis = (wide.mT @ left * inverse[:, None]).to(x.dtype)
        return PrincipalAxes(torch.cat([h @ basis, ones], dim=2), basis, mean)
    basis = torch.linalg.eigh((h.mT @ h).double())[1].to(x.dtype)
    for first in range(0, num_rows, PIECE_ROWS):
        rows = slice(first, first + PIECE_ROWS)
        h[:, rows] = h[:, rows] @ basis
    return PrincipalAxes(x, basis, mean)
