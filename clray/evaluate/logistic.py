"""Logistic regression at its optimum: L-BFGS for several strengths of the L2 penalty at once, on any device.

Knows arrays alone, neither splits nor what the classifier is for.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

MAX_ITERATIONS, MEMORY = 300, 10
TOLERANCE = 1e-7
"""A lane ends where a Newton step would lower its loss by less, in nats per sample."""
MAX_LOGITS = 1 << 24
"""Logits held at once, which bounds the memory at some 200 MiB."""
PRECONDITIONER_ROWS = 4
"""Rows from which the curvature is estimated, per dimension."""


@dataclass(frozen=True)
class Classes:
    """One class a sample: cross-entropy of the softmax. Curvature: Böhning, Ann. Inst. Stat. Math. 44 (1992)."""

    labels: Int[Tensor, " n"]
    num_outputs: int
    curvature: float = 0.5
    """Upper bound of the second derivative of a sample's loss by its logits."""

    def loss(self, logits: Float[Tensor, "n lanes outputs"], rows: slice) -> tuple[Tensor, Tensor]:
        """Loss of each of the rows and lanes [n, lanes], and its derivative by the logits [n, lanes, outputs]."""
        labels = self.labels[rows, None, None].expand(-1, logits.shape[1], 1)
        log_p = logits.log_softmax(2)
        loss = -log_p.gather(2, labels)[..., 0]
        return loss, log_p.exp_().scatter_add_(2, labels, torch.full_like(labels, -1, dtype=log_p.dtype))


@dataclass(frozen=True)
class Flags:
    """Several labels a sample, 0 or 1 each: the sum of their binary cross-entropies, without those that are -1."""

    labels: Int[Tensor, "n outputs"]
    curvature: float = 0.25

    @property
    def num_outputs(self) -> int:
        return self.labels.shape[1]

    def loss(self, logits: Float[Tensor, "n lanes outputs"], rows: slice) -> tuple[Tensor, Tensor]:
        labels = self.labels[rows, None].expand_as(logits)
        known, wanted = labels >= 0, labels.clamp(min=0).to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return (loss * known).sum(2), (logits.sigmoid() - wanted) * known


Targets = Classes | Flags
"""What the logits are held against."""


def with_ones(x: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim1"]:
    """With a last column of ones, whose weights are the intercepts."""
    return F.pad(x, (0, 1), value=1.0)


def mean_loss(x: Float[Tensor, "n dim1"], targets: Targets, weights: Float[Tensor, "lanes dim1 outputs"]) -> Tensor:
    """Loss per sample of each lane without its penalty, float64 [lanes]."""
    return _loss_and_gradient(x, targets, weights, with_gradient=False)[0]


def minimize(
    x: Float[Tensor, "n dim1"],
    targets: Targets,
    l2: Float[Tensor, " lanes"],
    start: Float[Tensor, "lanes dim1 outputs"] | None = None,
) -> Float[Tensor, "lanes dim1 outputs"]:
    """The weights of each lane that minimise the mean loss + l2/2 |W|^2, without a penalty on the intercepts.

    L-BFGS (Nocedal and Wright, Numerical Optimization, algorithm 7.5) that starts from the inverse of an upper bound of
    the Hessian, curvature X'X/n + l2. Lanes share each product with x; one that has converged leaves the batch.

    Args:
        x: standardised features and a last column of ones.
        l2: in units of the loss per sample; scikit-learn's C is 1/(n l2).
        start: weights to begin from; 0 by default.
    """
    result = x.new_zeros(len(l2), x.shape[1], targets.num_outputs) if start is None else start.clone()
    lanes = _Lanes(x, targets, l2, result)
    numbers = torch.arange(len(l2), device=x.device)
    for _ in range(MAX_ITERATIONS):
        done = lanes.step()
        if done.any():
            result[numbers[done]] = lanes.weights[done]
            numbers = numbers[~done]
            if len(numbers) == 0:
                break
            lanes.keep(~done)
    else:
        result[numbers] = lanes.weights
    return result


class _Lanes:
    """The state of L-BFGS for all lanes that have not converged."""

    def __init__(self, x: Tensor, targets: Targets, l2: Tensor, weights: Tensor) -> None:
        self.x, self.targets = x, targets
        self.penalty = l2[:, None, None].repeat(1, x.shape[1], 1)
        self.penalty[:, -1] = 0
        self.weights = weights
        self.factor = _factor(x, targets.curvature, l2)
        self.loss, self.gradient = self._at(weights)
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.scale = torch.ones_like(l2)

    def step(self) -> Tensor:
        """One step of every lane; tells which have converged, bool [lanes]."""
        direction = -self._times_inverse(self.gradient)
        slope = _dot(self.gradient, direction)
        weights, loss, gradient, moved = self._search(direction, slope)
        self._remember(weights - self.weights, gradient - self.gradient)
        self.weights, self.loss, self.gradient = weights, loss, gradient
        return (-slope / 2 < TOLERANCE) | ~moved

    def keep(self, lanes: Tensor) -> None:
        self.penalty, self.weights, self.factor = self.penalty[lanes], self.weights[lanes], self.factor[lanes]
        self.loss, self.gradient = self.loss[lanes], self.gradient[lanes]
        self.scale = self.scale[lanes]
        self.pairs = [(s[lanes], y[lanes], rho[lanes]) for s, y, rho in self.pairs]

    def _at(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = _loss_and_gradient(self.x, self.targets, weights)
        return loss + _dot(self.penalty * weights, weights) / 2, gradient + self.penalty * weights

    def _search(self, direction: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Halve the steps of the lanes until each lowers its loss (Armijo); the last says which lanes moved."""
        size = torch.ones_like(slope)
        for _ in range(20):
            weights = self.weights + size[:, None, None] * direction
            loss, gradient = self._at(weights)
            # Below the rounding of float32 a lower loss cannot be seen.
            is_lower = loss <= self.loss + 1e-4 * size * slope + 1e-7 * self.loss.abs()
            if is_lower.all():
                break
            size = torch.where(is_lower, size, size / 2)
        stays = ~is_lower[:, None, None]
        weights = torch.where(stays, self.weights, weights)
        return weights, torch.where(is_lower, loss, self.loss), torch.where(stays, self.gradient, gradient), is_lower

    def _remember(self, s: Tensor, y: Tensor) -> None:
        """A step and what it did to the gradient; one that says nothing, as where a lane did not move, counts for 0."""
        curvature = _dot(s, y)
        rho = torch.where(curvature > 1e-12, 1 / curvature, 0.0)
        self.pairs = [*self.pairs[1 - MEMORY :], (s, y, rho)]
        scale = curvature / _dot(y, torch.cholesky_solve(y, self.factor))
        self.scale = torch.where((scale > 0) & scale.isfinite(), scale, self.scale)

    def _times_inverse(self, gradient: Tensor) -> Tensor:
        """The two loops of L-BFGS: the estimated inverse of the Hessian times the gradient."""
        q, alphas = gradient, []
        for s, y, rho in reversed(self.pairs):
            alphas.append(rho * _dot(s, q))
            q = q - alphas[-1][:, None, None] * y
        q = self.scale[:, None, None] * torch.cholesky_solve(q, self.factor)
        for (s, y, rho), alpha in zip(self.pairs, reversed(alphas), strict=True):
            q = q + (alpha - rho * _dot(y, q))[:, None, None] * s
        return q


def _factor(x: Tensor, curvature: float, l2: Tensor) -> Tensor:
    """Cholesky factors of curvature X'X/n + l2, [lanes, dim1, dim1]; of many rows some are enough."""
    stride = max(1, len(x) // (PRECONDITIONER_ROWS * x.shape[1]))
    some = x[::stride]
    gram = (some.T @ some).double() * (curvature / len(some))
    floor = 1e-4 * gram.diagonal().mean()
    shifted = gram + (l2.double() + floor)[:, None, None] * torch.eye(len(gram), dtype=gram.dtype, device=x.device)
    factor: Tensor = torch.linalg.cholesky(shifted)
    return factor.to(x.dtype)


def _loss_and_gradient(
    x: Tensor, targets: Targets, weights: Tensor, *, with_gradient: bool = True
) -> tuple[Tensor, Tensor]:
    """The mean loss of each lane, float64, and its gradient, piece by piece of the rows."""
    num_lanes, dim, num_outputs = weights.shape
    flat = weights.permute(1, 0, 2).reshape(dim, num_lanes * num_outputs)
    gradient = torch.zeros_like(flat)
    total = torch.zeros(num_lanes, dtype=torch.float64, device=x.device)
    piece = max(1, MAX_LOGITS // flat.shape[1])
    for first in range(0, len(x), piece):
        rows = slice(first, first + piece)
        loss, derivative = targets.loss((x[rows] @ flat).view(-1, num_lanes, num_outputs), rows)
        total += loss.double().sum(0)
        if with_gradient:
            gradient += x[rows].T @ derivative.reshape(-1, flat.shape[1])
    gradient = gradient.view(dim, num_lanes, num_outputs).permute(1, 0, 2).contiguous()
    return total / len(x), gradient / len(x)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Of each lane."""
    products: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return products
