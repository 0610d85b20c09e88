"""Which clusters and which temperature, how sure, and why: the answer of a sweep, in figures and in words.

References are what candidates are held against, and never the answer where there is a candidate.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from clray.config.sections.sweep import needs_labels
from clray.report.measures import PERCENT, Measure, measure_of
from clray.report.results import Sweep
from clray.report.roles import Role
from clray.report.summary import (
    ABOVE_CHANCE,
    ACCURACIES,
    BALANCE,
    INFORMATION,
    PointSummary,
    metric_name,
    reported_metric,
    summarize,
    with_spread,
)
from clray.report.uncertainty import Noise, noise_of

MAX_NAMED = 3
NO_TRIAL = "No trial has finished."


@dataclass(frozen=True)
class Comparison:
    """The best point less another: a difference of the metric, and half its 95 % interval, None if unknown."""

    other: PointSummary
    difference: float
    margin: float | None
    measure: Measure = PERCENT

    @property
    def is_told_apart(self) -> bool:
        return self.margin is not None and abs(self.difference) > self.margin

    @property
    def interval(self) -> str:
        """In points, or in the metric's own units, for readers."""
        if self.margin is None:
            return "of unknown uncertainty"
        low, high = (self.measure.scale * (self.difference + sign * self.margin) for sign in (-1, 1))
        return f"95 % interval {low:+.{self.measure.digits}f} to {high:+.{self.measure.digits}f}"


@dataclass(frozen=True)
class Answer:
    """Of one sweep.

    Attributes:
        metric: in which accuracies are told: on the test images, where all points have it.
        num_validation_images: by which the best was chosen, None where they are the same images or not known.
        best: of the candidates; of the references where there are no candidates.
        infonce, supcon: the best point compared with the best of each, None where the sweep has none.
        way: share of the way from InfoNCE to SupCon, None where these two are not told apart.
        rivals: the other candidates that are not told apart from the best, best first.
        neighbours: of the same source and temperature, the next coarser and the next finer point.
        floor: accuracy of the encoder before any training.
        skipped: points that the prescreen left out.
    """

    metric: str
    num_validation_images: int | None
    best: PointSummary
    infonce: Comparison | None
    supcon: Comparison | None
    way: float | None
    rivals: tuple[PointSummary, ...]
    neighbours: tuple[PointSummary | None, PointSummary | None]
    floor: Comparison | None
    noise: Noise
    num_trials: int
    num_early: int
    skipped: tuple[str, ...] = ()

    @property
    def is_beaten(self) -> bool:
        """Whether InfoNCE is better, by more than the uncertainty."""
        return self.infonce is not None and self.infonce.is_told_apart and self.infonce.difference < 0


def answer_of(sweep: Sweep, metric: str = ACCURACIES[0]) -> Answer | None:
    """The answer: chosen by the sweep's metric, told in the same measure on the test images; None without a trial."""
    summaries = [each for each in summarize(sweep.trials, metric) if metric in each.means]
    best = choose_best(summaries)
    if best is None:
        return None
    ranked_by, metric = metric, reported_metric(summaries, metric)
    noise = noise_of(summaries, metric, sweep.num_test_images)

    def against(other: PointSummary | None) -> Comparison | None:
        if other is None or other is best:
            return None
        points = [(each.means[metric], each.num_repeats) for each in (best, other)]
        return Comparison(other, best.means[metric] - other.means[metric], noise.margin(*points), measure_of(metric))

    infonce, supcon = (against(_first(summaries, role)) for role in (Role.INFONCE, Role.SUPCON))
    candidates = [each for each in summaries if each.role is best.role and each is not best]
    rivals = [each for each in candidates if (found := against(each)) is not None and not found.is_told_apart]
    floor = None
    if metric in sweep.untrained:
        floor = against(PointSummary(sweep.start, 1, {metric: sweep.untrained[metric]}, {}))
    return Answer(
        metric=metric,
        num_validation_images=sweep.num_validation_images if metric != ranked_by else None,
        best=best,
        infonce=infonce,
        supcon=supcon,
        way=_way(infonce, supcon, noise, metric),
        rivals=tuple(rivals),
        neighbours=_neighbours(best, candidates),
        floor=floor,
        noise=noise,
        num_trials=len(sweep.trials),
        num_early=sum(not trial.is_finished for trial in sweep.trials),
        skipped=tuple(dict.fromkeys(trial.point for trial in sweep.skipped)),
    )


def choose_best(summaries: Sequence[PointSummary]) -> PointSummary | None:
    """The first of the candidates; without any of InfoNCE, which needs no labels; without that of the others."""
    for roles in ({Role.CANDIDATE}, {Role.INFONCE}, set(Role)):
        found = next((each for each in summaries if each.role in roles), None)
        if found is not None:
            return found
    return None


def sentences(answer: Answer) -> list[str]:
    """The answer for someone who knows nothing of the sweep; the first sentence says it all."""
    return [
        _first_sentence(answer),
        *_on_rivals(answer),
        *_on_information(answer),
        *_on_floor(answer),
        *(
            [f"Not compared, as they ended early: {answer.num_early} of {answer.num_trials} trials."]
            if answer.num_early
            else []
        ),
        *_on_skipped(answer),
        *_on_noise(answer),
        *_on_choice(answer),
    ]


def headline(answer: Answer) -> str:
    """The first sentence, and what the clusters tell: for a place with room for two lines."""
    return " ".join([_first_sentence(answer), *list(_on_information(answer))[:1]])


def describe_answer(sweep: Sweep, metric: str = ACCURACIES[0]) -> list[str]:
    """The sentences of a sweep, or that no trial has finished."""
    answer = answer_of(sweep, metric)
    return [NO_TRIAL] if answer is None else sentences(answer)


def _first_sentence(answer: Answer) -> str:
    best, infonce = answer.best, answer.infonce
    words = (_percent(best, answer), metric_name(answer.metric))
    accuracy = " ".join(words if measure_of(answer.metric).is_share else words[::-1])
    if best.num_repeats > 1:
        accuracy += f" over {best.num_repeats} seeds"
    if best.role.is_reference:
        others = "" if infonce is None else f"; InfoNCE reaches {_percent(infonce.other, answer)}"
        return f"The sweep has no candidate clusters, only references: the best is {best.point}, {accuracy}{others}."
    if infonce is None:
        return f"The best clusters are {best.point}, {accuracy}. The sweep has no InfoNCE to hold them against."
    measure, name = infonce.measure, f"{infonce.other.point}, {_percent(infonce.other, answer)}"
    points, digits = measure.scale * infonce.difference, measure.digits
    if answer.is_beaten:
        return (
            f"InfoNCE wins: {name}. The best clusters, {best.point}, reach {accuracy}, "
            f"{-points:.{digits}f}{measure.points} less ({infonce.interval})."
        )
    way = _on_way(answer)
    if not infonce.is_told_apart:
        return (
            f"The best clusters are {best.point}, {accuracy}, but they are not told apart from InfoNCE ({name}): "
            f"{points:+.{digits}f}{measure.points}, {infonce.interval}{way}."
        )
    return (
        f"The best clusters are {best.point}, {accuracy}: {points:.{digits}f}{measure.points} above InfoNCE ({name}; "
        f"{infonce.interval}){way}."
    )


def _on_way(answer: Answer) -> str:
    if answer.supcon is None:
        return ""
    supcon = f"SupCon ({_percent(answer.supcon.other, answer)})"
    return f"; {supcon} is not told apart from InfoNCE" if answer.way is None else (
        f", {100 * answer.way:.0f} % of the way to {supcon}"
    )  # fmt: skip


def _on_rivals(answer: Answer) -> Iterable[str]:
    if answer.rivals:
        yield f"Not told apart from {answer.best.point}: {_listed([each.point for each in answer.rivals])}."


def _on_information(answer: Answer) -> Iterable[str]:
    best = answer.best
    if not set(INFORMATION) <= best.means.keys():
        if set(BALANCE) <= best.means.keys():
            entropy, imbalance = (best.means[name] for name in BALANCE)
            yield f"Its clusters hold {entropy:.2f} bits, H(Z), with an imbalance of {imbalance:.2f} (1: equal sizes)."
        if not needs_labels(answer.metric):
            yield f"There are no labels: {metric_name(answer.metric)} ranks the points, and needs none."
        return
    chance = f" ({best.means[ABOVE_CHANCE]:.2f} above chance)" if ABOVE_CHANCE in best.means else ""
    told, held = (best.means[name] for name in INFORMATION)
    yield f"Its clusters tell {told:.2f} bits about the labels, I(Z;T){chance}, and hold {held:.2f} besides, H(Z|T)."
    parts = []
    for word, other in zip(("coarser", "finer"), answer.neighbours, strict=True):
        if other is not None and set(INFORMATION) <= other.means.keys():
            tells, holds = (_compared(other.means[name], best.means[name]) for name in INFORMATION)
            parts.append(f"the next {word}, {other.point}, tells {tells} and holds {holds}")
    if parts:
        text = "; ".join(parts)
        yield f"{text[0].upper()}{text[1:]}."


def _on_floor(answer: Answer) -> Iterable[str]:
    if answer.floor is not None:
        apart = "" if answer.floor.is_told_apart else ", which is not told apart from the best"
        yield f"The {answer.floor.other.point} reaches {_percent(answer.floor.other, answer)}{apart}."


def _on_skipped(answer: Answer) -> Iterable[str]:
    if answer.skipped:
        names = _listed(list(answer.skipped))
        yield f"Not trained, as the prescreen did not find their clusters worth it: {names}."


def _on_noise(answer: Answer) -> Iterable[str]:
    if answer.infonce is None and answer.floor is None and not answer.rivals:
        return
    if answer.noise.is_known:
        yield f"The uncertainty is that of {answer.noise.source}."
    elif not measure_of(answer.metric).is_share:
        yield "How sure this is cannot be said: there is one seed. Repeat the points with sweep.seeds=3."
    else:
        yield "How sure this is cannot be said: there is one seed, and the number of test images is not recorded."


def _on_choice(answer: Answer) -> Iterable[str]:
    if answer.num_validation_images is not None:
        yield f"The best was chosen by {answer.num_validation_images} validation images; accuracies are on test images."


def _compared(value: float, other: float) -> str:
    if abs(value - other) < 0.005:
        return f"as much ({value:.2f})"
    return f"{'more' if value > other else 'less'} ({value:.2f})"


def _percent(summary: PointSummary, answer: Answer) -> str:
    measure = measure_of(answer.metric)
    return measure.with_unit(with_spread(summary, answer.metric, measure.scale, measure.digits))


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:MAX_NAMED])
    rest = len(names) - MAX_NAMED
    return f"{shown} and {rest} more" if rest > 0 else shown


def _first(summaries: Sequence[PointSummary], role: Role) -> PointSummary | None:
    return next((each for each in summaries if each.role is role), None)


def _way(infonce: Comparison | None, supcon: Comparison | None, noise: Noise, metric: str) -> float | None:
    if infonce is None or supcon is None:
        return None
    points = [(each.other.means[metric], each.other.num_repeats) for each in (supcon, infonce)]
    whole, margin = points[0][0] - points[1][0], noise.margin(*points)
    return infonce.difference / whole if whole > (margin or 0.0) else None


def _neighbours(
    best: PointSummary, candidates: Sequence[PointSummary]
) -> tuple[PointSummary | None, PointSummary | None]:
    if best.num_clusters is None:
        return None, None
    counts = [
        (each.num_clusters, each)
        for each in candidates
        if each.num_clusters is not None and (each.source, each.temperature) == (best.source, best.temperature)
    ]
    coarser = [pair for pair in counts if pair[0] < best.num_clusters]
    finer = [pair for pair in counts if pair[0] > best.num_clusters]
    return (
        max(coarser, key=lambda pair: pair[0])[1] if coarser else None,
        min(finer, key=lambda pair: pair[0])[1] if finer else None,
    )
