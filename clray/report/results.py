"""A sweep's trials and what they measured, as reports show them."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class TrialResult:
    """One trial that is over.

    Attributes:
        point: of the sweep, which its repeats share.
        metrics: the last of each.
        params: the resolved config by dotted key, as text.
        state: `finished`, or `pruned` where the scheduler ended it early for `reason`.
    """

    point: str
    seed: int
    metrics: dict[str, float]
    params: dict[str, str] = field(default_factory=dict)
    state: str = "finished"
    reason: str | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep's name and its trials, in the order in which they began."""

    name: str
    trials: list[TrialResult]
