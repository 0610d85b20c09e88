"""Linear probe: what a linear classifier of frozen representations gets right, at its optimum."""

from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from clray.evaluate.labelled import Labelled, choose_labelled
from clray.evaluate.logistic import Classes, Flags, Targets, mean_loss, minimize, with_ones
from clray.evaluate.measures import class_measures, flag_measures
from clray.evaluate.principal_axes import PrincipalAxes, to_principal_axes

GRID = torch.logspace(1, -6, 15)
"""Strengths of the L2 penalty, in units of the loss per sample: half a decade apart."""
PIECE = 3
"""So many are solved at once, the strong ones first; weaker ones only where the best so far, by accuracy or by loss, is
the weakest."""
HELD_OUT = 0.2
"""Share of the training samples that choose the strength where there are no validation samples."""
MOMENT_ROWS = 1 << 14
"""Samples that are held in float64 at once."""
MOST_TOGETHER = 1 << 22
"""Numbers of the representations of all draws that are solved together; of more a draw alone fills the processor."""
Figures = dict[str, float]


class LinearProbe:
    """A linear classifier of the frozen representation, for one or more budgets of labels.

    Multinomial logistic regression, or for several labels a sample one binary regression each. Representations are
    standardised with the mean and deviation of all training samples. The strength of the L2 penalty is the one of the
    highest accuracy on the validation samples, and among equals of the lowest loss there. Without validation samples a
    fifth of the training samples choose it, and the classifier is then solved on all that the budget has.
    """

    def __init__(
        self,
        train: Labelled,
        validation: Labelled | None,
        *,
        num_classes: int,
        seed: int,
        device: torch.device,
    ) -> None:
        """
        Args:
            train: at least two samples.
            num_classes: of one class a sample; not looked at for several labels a sample.
            seed: of the draws of labels.
        """
        self.train, self.num_classes, self.seed, self.device = train, num_classes, seed, device
        self.mean, self.scale = (each.to(device) for each in _standard(train.h))
        rows = np.random.default_rng(seed).permutation(len(train))
        num_held = 0 if validation is not None else max(1, int(HELD_OUT * len(train)))
        self.held, self.free = np.sort(rows[:num_held]), np.sort(rows[num_held:])
        self.is_refitted = validation is None
        self.choosing = self._on_device(train, self.held) if validation is None else self._on_device(validation)

    @torch.inference_mode()
    def measure(
        self, parts: Mapping[str, Labelled], *, budgets: Sequence[int | None] = (None,), num_draws: int = 1
    ) -> dict[str, Figures]:
        """Figures of each part, by name.

        `linear_accuracy`, `linear_balanced_accuracy` and so on are those of the largest budget, their mean over its
        draws. `linear_accuracy_5_per_class` and `linear_accuracy_5_per_class_spread` are the mean and the sample
        standard deviation of a budget of 5.

        Args:
            budgets: labels of each class, None for all.
            num_draws: of the samples of a budget; all labels are one draw.
        """
        inputs = {name: self._on_device(part) for name, part in parts.items()}
        found: dict[str, Figures] = {name: {} for name in parts}
        for budget in sorted(budgets, key=lambda each: np.inf if each is None else each):
            count = 1 if budget is None else num_draws
            solved = self._solve(budget, [self.seed + draw for draw in range(count)])
            for name, (x, labels) in inputs.items():
                draws = [self._measures(x @ each, labels) for each in solved]
                found[name] |= _summary(budget, draws)
        return found

    def _solve(self, budget: int | None, seeds: Sequence[int]) -> list[Float[Tensor, "dim1 outputs"]]:
        """The weights of each draw at the strength that was chosen for it."""
        draws = [self.free[choose_labelled(self.train.labels[self.free], budget, seed)] for seed in seeds]
        together = max(1, MOST_TOGETHER // (max(1, *map(len, draws)) * len(self.mean)))
        groups = [draws[first : first + together] for first in range(0, len(draws), together)]
        chosen = [best for group in groups for best in self._choose(*self._draws(group))]
        if not self.is_refitted or budget is not None:
            return [weights for _, weights in chosen]
        l2 = torch.tensor([each for each, _ in chosen]).to(self.device)  # of the one draw that all labels are
        axes, targets = self._draws([np.arange(len(self.train))])
        return [axes.back(minimize(axes.x, targets, l2))[0, 0]]

    def _choose(self, axes: PrincipalAxes, targets: Targets) -> list[tuple[float, Tensor]]:
        """The strength of each draw, and its weights."""
        found: list[list[tuple[tuple[float, float], float, Tensor]]] = [[] for _ in axes.x]
        going, start = list(range(len(found))), None
        for strengths in GRID.to(self.device).split(PIECE):
            weights = minimize(axes.x, targets, strengths, start)
            of_samples = axes.back(weights)
            scores = self._scores(of_samples.flatten(0, 1))
            for place, number in enumerate(going):
                part = scores[place * len(strengths) : (place + 1) * len(strengths)]
                found[number] += zip(part, strengths.tolist(), of_samples[place], strict=True)
            stays = [place for place, number in enumerate(going) if _ends_with_best(found[number])]
            if not stays:
                break
            if len(stays) < len(going):
                axes, targets, weights = axes.of(stays), targets.of(stays), weights[stays]
                going = [going[place] for place in stays]
            start = weights[:, -1:].expand(-1, len(strengths), -1, -1)
        return [max(each, key=lambda one: one[0])[1:] for each in found]

    def _scores(self, weights: Float[Tensor, "lanes dim1 outputs"]) -> list[tuple[float, float]]:
        """How good each is for the samples that choose: its first figure, and less its loss."""
        x, labels = self.choosing
        losses = mean_loss(x[None], self._targets(labels[None]), weights[None])[0].tolist()
        figures = (next(iter(self._measures(x @ each, labels).values()), 0.0) for each in weights)
        return [(figure, -loss) for figure, loss in zip(figures, losses, strict=True)]

    def _measures(self, scores: Tensor, labels: Tensor) -> Figures:
        return flag_measures(scores, labels) if labels.ndim == 2 else class_measures(scores, labels)

    def _targets(self, labels: Int[Tensor, "problems n ..."]) -> Targets:
        return Flags(labels) if labels.ndim == 3 else Classes(labels, self.num_classes)

    def _draws(self, draws: Sequence[np.ndarray]) -> tuple[PrincipalAxes, Targets]:
        """The training samples of some draws, copied for them, and their labels."""
        if len(draws) == 1:
            x, labels = (each[None] for each in self._on_device(self.train, draws[0]))
        else:
            parts = [self._on_device(self.train, rows) for rows in draws]
            x = pad_sequence([each for each, _ in parts], batch_first=True)
            # Of one class a sample all draws have the same number; flags that are unknown fill up the others.
            labels = pad_sequence([each for _, each in parts], batch_first=True, padding_value=-1)
        return to_principal_axes(x), self._targets(labels)

    def _on_device(self, part: Labelled, rows: np.ndarray | None = None) -> tuple[Tensor, Tensor]:
        """Standardised representations with a column of ones, and labels."""
        h, labels = (part.h, part.labels) if rows is None else (part.h[rows], part.labels[rows])
        x = with_ones(torch.from_numpy(h).to(self.device))
        x[:, :-1].sub_(self.mean).mul_(self.scale)
        return x, torch.from_numpy(labels.astype(np.int64)).to(self.device)


def _ends_with_best(found: Sequence[tuple[tuple[float, float], float, Tensor]]) -> bool:
    """Whether the weakest penalty is the best so far.

    Strong penalties give all but equal classifiers, the best of which by accuracy is chance: their loss tells that
    weaker ones are better.
    """
    places = range(len(found))
    best = max(places, key=lambda place: found[place][0])
    least_loss = max(places, key=lambda place: found[place][0][1])
    return max(best, least_loss) == len(found) - 1


def _standard(h: Float[np.ndarray, "n dim"]) -> tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]]:
    """The mean of each dimension, and one over its deviation; 0 where it is the same in all samples up to rounding."""
    pieces = [torch.from_numpy(h[first : first + MOMENT_ROWS]) for first in range(0, len(h), MOMENT_ROWS)]
    mean = torch.stack([piece.double().sum(0) for piece in pieces]).sum(0) / len(h)
    variance = torch.stack([(piece.double() - mean).square().sum(0) for piece in pieces]).sum(0) / len(h)
    is_constant = variance.sqrt() <= 1e-6 * mean.abs()
    return mean.float(), torch.where(is_constant, 0, variance.rsqrt()).float()


def _summary(budget: int | None, draws: list[Figures]) -> Figures:
    names = draws[0].keys()
    means = {f"linear_{name}": fmean(each[name] for each in draws) for name in names}
    if budget is None or not names:
        return means
    name = next(iter(names))
    of_budget = f"linear_{name}_{budget}_per_class"
    means[of_budget] = means[f"linear_{name}"]
    if len(draws) > 1:
        means[f"{of_budget}_spread"] = stdev(each[name] for each in draws)
    return means
