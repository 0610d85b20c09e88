"""Which clusters are worth training with, judged before it by what they tell.

Source: Tsai et al., arXiv 2106.02869, section 4.1: good clusters have high I(Z;T) and low H(Z|T). Knows figures alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

TIE = 1e-9
MIN_STABILITY = 0.1
"""Adjusted Rand index of two starts of k-means, below which the embeddings decide next to nothing."""
CHANCE_DEVIATIONS = 4.0
"""Of I(Z;T) of random clusters, above which clusters tell something."""
DEVIATION = "clusters/chance_deviation_bits"
INFORMATION, NOISE = "clusters/adjusted_mutual_information_bits", "clusters/conditional_entropy_bits"
STABILITY, SILHOUETTE = "clusters/first_stability", "clusters/first_silhouette"
NAMES = {INFORMATION: "I(Z;T) above chance", NOISE: "H(Z|T)", STABILITY: "stability", SILHOUETTE: "silhouette"}


@dataclass(frozen=True)
class Look:
    """A point of a sweep before it is trained.

    Attributes:
        name: of the point.
        figures: of its clusters, by metric names; the mean over its seeds.
        reason: why it is not worth training; None where it is.
    """

    name: str
    figures: dict[str, float]
    reason: str | None = None


def judge(looks: Sequence[Look], *, keep: float = 1.0) -> list[Look]:
    """The same points, in the same order, with a reason for those that are not worth training.

    A point is empty where its clusters tell no more than random ones of their sizes. It is dominated where another
    point tells at least as much and holds no more besides, and one of the two is not equal. With labels these are
    I(Z;T) above chance and H(Z|T); without, stability and silhouette, of which more is better.

    Args:
        looks: points that differ in their clusters alone.
        keep: at most this share of the points is kept: those of the highest AMI, or without labels stability.
    """
    judged: dict[str, str] = {}
    for each in looks:
        reason = _empty(each) or _dominated(each, looks)
        if reason is not None:
            judged[each.name] = reason
    rest = [each for each in looks if each.name not in judged and _is_told(each)]
    limit = max(1, math.ceil(keep * sum(map(_is_told, looks)) - TIE))
    ranked = sorted(rest, key=lambda each: -_rank(each)[1])
    for each in ranked[limit:]:
        last, (name, value) = ranked[limit - 1], _rank(each)
        judged[each.name] = f"not among the {limit} best by {name}: {value:.2f}, {last.name} {_rank(last)[1]:.2f}"
    return [Look(each.name, each.figures, judged.get(each.name)) for each in looks]


def _is_told(look: Look) -> bool:
    return _goods(look) is not None


def _goods(look: Look) -> tuple[tuple[str, float, int], tuple[str, float, int]] | None:
    """Two figures with their names, and 1 where more is better, -1 where less is; None where they are not known."""
    for pair, signs in (((INFORMATION, NOISE), (1, -1)), ((STABILITY, SILHOUETTE), (1, 1))):
        if set(pair) <= look.figures.keys():
            first, second = ((name, look.figures[name], sign) for name, sign in zip(pair, signs, strict=True))
            return first, second
    return None


def _rank(look: Look) -> tuple[str, float]:
    if "clusters/ami" in look.figures:
        return "AMI", look.figures["clusters/ami"]
    return "stability", look.figures[STABILITY]


def _empty(look: Look) -> str | None:
    goods = _goods(look)
    if goods is None:
        return None
    name, value, _ = goods[0]
    least = MIN_STABILITY
    if name == INFORMATION:
        least = CHANCE_DEVIATIONS * look.figures[DEVIATION]
    if value > least:
        return None
    return f"empty of information: {NAMES[name]} {value:.3f}, below {least:.3f}"


def _dominated(look: Look, looks: Sequence[Look]) -> str | None:
    own = _goods(look)
    if own is None:
        return None
    better = [(other, goods) for other in looks if (goods := _goods(other)) is not None and _beats(goods, own)]
    if not better:
        return None
    other, goods = max(better, key=lambda each: each[1][0][1])
    parts = [
        f"{NAMES[name]} {value:.2f} against {theirs:.2f}"
        for (name, value, _), (_, theirs, _) in zip(own, goods, strict=True)
    ]
    return f"dominated by {other.name}: {', '.join(parts)}"


def _beats(
    theirs: tuple[tuple[str, float, int], tuple[str, float, int]], own: tuple[tuple[str, float, int], ...]
) -> bool:
    gains = [
        sign * (value - mine)
        for (name, value, sign), (own_name, mine, _) in zip(theirs, own, strict=True)
        if name == own_name
    ]
    return len(gains) == 2 and min(gains) >= -TIE and max(gains) > TIE
