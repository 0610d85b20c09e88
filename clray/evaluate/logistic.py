"""Logistic regression at its optimum, on any device: several sets of samples and strengths of the L2 penalty at once.

Knows arrays alone, neither splits nor what the classifier is for.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from clray.evaluate.quasi_newton import Pairs

MAX_ITERATIONS = 300
TOLERANCE = 1e-7
"""A lane ends where a step of the estimated Hessian would lower its loss by less, in nats per sample."""
REFRESH = 10
"""Steps after which the curvature is measured anew."""
MAX_LOGITS = 1 << 24
"""Logits, or squares of features, held at once, which bounds the memory at some 200 MiB."""


@dataclass(frozen=True)
class Classes:
    """One class a sample: cross-entropy of the softmax."""

    labels: Int[Tensor, "problems n"]
    num_outputs: int

    def of(self, problems: Tensor | Sequence[int]) -> "Classes":
        return Classes(self.labels[problems], self.num_outputs)

    def loss(self, logits: Float[Tensor, "problems n lanes outputs"], rows: slice) -> tuple[Tensor, Tensor]:
        """Loss of each row and lane [problems, n, lanes], and its derivative by the logits, of their shape."""
        labels = self.labels[:, rows, None, None].expand(-1, -1, logits.shape[2], 1)
        log_p = logits.log_softmax(3)
        loss = -log_p.gather(3, labels)[..., 0]
        return loss, log_p.exp_().scatter_add_(3, labels, torch.full_like(labels, -1, dtype=log_p.dtype))

    def curvature(self, logits: Float[Tensor, "problems n lanes outputs"], rows: slice) -> Tensor:  # noqa: ARG002
        """The second derivative by each logit."""
        p = logits.softmax(3)
        return p * (1 - p)


@dataclass(frozen=True)
class Flags:
    """Several labels a sample, 0 or 1 each: the sum of their binary cross-entropies, without those that are -1."""

    labels: Int[Tensor, "problems n outputs"]

    @property
    def num_outputs(self) -> int:
        return self.labels.shape[2]

    def of(self, problems: Tensor | Sequence[int]) -> "Flags":
        return Flags(self.labels[problems])

    def loss(self, logits: Float[Tensor, "problems n lanes outputs"], rows: slice) -> tuple[Tensor, Tensor]:
        labels = self.labels[:, rows, None].expand_as(logits)
        known, wanted = labels >= 0, labels.clamp(min=0).to(logits.dtype)
        loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return (loss * known).sum(3), (logits.sigmoid() - wanted) * known

    def curvature(self, logits: Float[Tensor, "problems n lanes outputs"], rows: slice) -> Tensor:
        p = logits.sigmoid()
        return p * (1 - p) * (self.labels[:, rows, None] >= 0)


Targets = Classes | Flags
"""What the logits are held against."""


def with_ones(x: Float[Tensor, "... n dim"]) -> Float[Tensor, "... n dim1"]:
    """With a last column of ones, whose weights are the intercepts."""
    return F.pad(x, (0, 1), value=1.0)


def mean_loss(
    x: Float[Tensor, "problems n dim1"], targets: Targets, weights: Float[Tensor, "problems lanes dim1 outputs"]
) -> Float[Tensor, "problems lanes"]:
    """Loss per sample without its penalty, float64."""
    return _loss_and_gradient(x, targets, weights, with_gradient=False)[0] / _sizes(x)


def minimize(
    x: Float[Tensor, "problems n dim1"],
    targets: Targets,
    l2: Float[Tensor, " strengths"],
    start: Float[Tensor, "problems strengths dim1 outputs"] | None = None,
) -> Float[Tensor, "problems strengths dim1 outputs"]:
    """The weights of each problem and strength that minimise the mean loss + l2/2 |W|^2; intercepts have no penalty.

    L-BFGS from the diagonal of the Hessian, which is measured anew now and then. A lane is a problem at a strength. The
    lanes of a problem share each product with x; one that has converged stays where it is, and problems and strengths
    whose lanes all have leave the batch.

    Args:
        x: features and a last column of ones. Rows of zeros fill up smaller problems: flags of these are -1. The more
            the features are uncorrelated, as in principal axes, the fewer steps it takes.
        l2: in units of the loss per sample; scikit-learn's C is 1/(n l2).
        start: weights to begin from; 0 by default.
    """
    shape = (len(x), len(l2), x.shape[2], targets.num_outputs)
    result = x.new_zeros(shape) if start is None else start.clone()
    batch = _Batch(x, targets, l2, result)
    problems, strengths = (torch.arange(size, device=x.device) for size in shape[:2])
    for number in range(1, MAX_ITERATIONS + 1):
        has_ended = batch.step()
        if has_ended or number == MAX_ITERATIONS:
            result[problems[:, None], strengths] = batch.weights
            going = ~batch.is_done
            rows, columns = going.any(1), going.any(0)
            problems, strengths = problems[rows], strengths[columns]
            if len(problems) == 0:
                break
            if not (rows.all() and columns.all()):
                batch.keep(rows, columns)
        if number % REFRESH == 0:
            batch.measure_curvature()
    return result


class _Batch:
    """The state of all lanes, [problems, strengths, ...]; those that are done do not move."""

    def __init__(self, x: Tensor, targets: Targets, l2: Tensor, weights: Tensor) -> None:
        self.x, self.targets, self.weights, self.sizes = x, targets, weights, _sizes(x)
        self.shares = (1 / self.sizes).to(x.dtype)[..., None, None]
        self.penalty = l2[:, None, None].repeat(len(x), 1, x.shape[2], 1)
        self.penalty[:, :, -1] = 0
        self.is_done = torch.zeros(weights.shape[:2], dtype=torch.bool, device=x.device)
        self.loss, self.gradient = self._at(weights)
        self.scale = self._scale()
        self.pairs = Pairs(_lanes(weights))

    def step(self) -> bool:
        """One step of every lane; tells whether any has converged by it."""
        # In coordinates in which the first guess of the Hessian is the identity.
        gradient = _lanes(self.gradient * self.scale)
        direction = -self.pairs.times_inverse(gradient) * ~self.is_done.view(-1, 1)
        slope = torch.linalg.vecdot(gradient, direction).view_as(self.is_done)
        weights, loss, gradient, moved = self._search(direction.view_as(self.weights) * self.scale, slope)
        self.pairs.add(
            _lanes((weights - self.weights) / self.scale), _lanes((gradient - self.gradient) * self.scale)
        )  # fmt: skip
        self.weights, self.loss, self.gradient = weights, loss, gradient
        ends = ~self.is_done & ((-slope / 2 < TOLERANCE) | ~moved)
        self.is_done = self.is_done | ends
        return bool(ends.any())

    def measure_curvature(self) -> None:
        before, self.scale = self.scale, self._scale()
        self.pairs.rescale(_lanes(before / self.scale))

    def keep(self, problems: Bool[Tensor, " problems"], strengths: Bool[Tensor, " strengths"]) -> None:
        if not problems.all():
            self.x, self.targets = self.x[problems], self.targets.of(problems)
            self.sizes, self.shares = self.sizes[problems], self.shares[problems]
        stays = problems[:, None] & strengths
        self.pairs.keep(stays.flatten())
        for name in ("penalty", "weights", "is_done", "loss", "gradient", "scale"):
            setattr(self, name, getattr(self, name)[problems][:, strengths])

    def _at(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = _loss_and_gradient(self.x, self.targets, weights)
        pull = self.penalty * weights
        own = torch.linalg.vecdot(pull.flatten(2), weights.flatten(2)) / 2
        return loss / self.sizes + own, gradient * self.shares + pull

    def _scale(self) -> Tensor:
        """One over the root of the diagonal of the Hessian."""
        diagonal = _curvature(self.x, self.targets, self.weights) * self.shares + self.penalty
        # In float32 none is 0: an intercept has no penalty, and of samples that are told apart no curvature.
        return (diagonal + 1e-4 * diagonal.mean(2, keepdim=True)).rsqrt()

    def _search(self, direction: Tensor, slope: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Halve the steps of the lanes until each lowers its loss (Armijo); the last says which lanes moved."""
        size = torch.ones_like(slope)
        for _ in range(20):
            weights = self.weights + size[:, :, None, None] * direction
            loss, gradient = self._at(weights)
            # Below the rounding of float32 a lower loss cannot be seen.
            is_lower = loss <= self.loss + 1e-4 * size * slope + 1e-7 * self.loss.abs()
            if is_lower.all():
                return weights, loss, gradient, is_lower
            size = torch.where(is_lower, size, size / 2)
        stays = ~is_lower[:, :, None, None]
        weights = torch.where(stays, self.weights, weights)
        return weights, torch.where(is_lower, loss, self.loss), torch.where(stays, self.gradient, gradient), is_lower


def _loss_and_gradient(
    x: Tensor, targets: Targets, weights: Tensor, *, with_gradient: bool = True
) -> tuple[Tensor, Tensor]:
    """The sum of the samples' losses, float64 [problems, lanes], and its gradient, of the shape of the weights."""
    gradient = weights.new_zeros(weights.transpose(1, 2).flatten(2).shape)
    total = torch.zeros(weights.shape[:2], dtype=torch.float64, device=x.device)
    for rows, logits in _logits(x, weights):
        loss, derivative = targets.loss(logits, rows)
        total += loss.sum(1, dtype=total.dtype)
        if with_gradient:
            gradient += x[:, rows].mT @ derivative.flatten(2)
    return total, _by_lane(gradient, weights)


def _curvature(x: Tensor, targets: Targets, weights: Tensor) -> Tensor:
    """The diagonal of the Hessian of that sum, of the shape of the weights."""
    total = weights.new_zeros(weights.transpose(1, 2).flatten(2).shape)
    for rows, logits in _logits(x, weights):
        total += x[:, rows].square().mT @ targets.curvature(logits, rows).flatten(2)
    return _by_lane(total, weights)


def _logits(x: Tensor, weights: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Piece by piece of the rows, [problems, n, lanes, outputs]."""
    flat = weights.transpose(1, 2).flatten(2)
    piece = max(1, MAX_LOGITS // (len(flat) * max(flat.shape[1:])))
    for first in range(0, x.shape[1], piece):
        rows = slice(first, first + piece)
        yield rows, (x[:, rows] @ flat).unflatten(2, (weights.shape[1], weights.shape[3]))


def _by_lane(products: Tensor, weights: Tensor) -> Tensor:
    """What has the dimensions first, [problems, dim1, lanes * outputs], in the shape of the weights."""
    return products.view(*products.shape[:2], weights.shape[1], weights.shape[3]).transpose(1, 2)


def _sizes(x: Tensor) -> Tensor:
    """How many rows of each problem are samples, or 1 where none is, float64 [problems, 1]."""
    sizes: Tensor = x[:, :, -1].sum(1, keepdim=True, dtype=torch.float64)
    return sizes.clamp(min=1)


def _lanes(values: Tensor) -> Float[Tensor, "lanes numbers"]:
    return values.reshape(values.shape[0] * values.shape[1], -1)
