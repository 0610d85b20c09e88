"""A sweep's trials and what they measured, as reports show them."""

import math
from dataclasses import dataclass, field

from clray.report.roles import Role, role_of


@dataclass(frozen=True)
class TrialResult:
    """A finished trial.

    Attributes:
        point: of the sweep, which its repeats share.
        metrics: the last of each, without those that are not finite.
        params: the resolved config by dotted key, as text.
        state: `finished`, or `pruned` where the scheduler ended it early for `reason`, or `skipped` where the prescreen
            did not let it train.
    """

    point: str
    seed: int
    metrics: dict[str, float]
    params: dict[str, str] = field(default_factory=dict)
    state: str = "finished"
    reason: str | None = None

    def __post_init__(self) -> None:
        finite = {name: value for name, value in self.metrics.items() if math.isfinite(value)}
        object.__setattr__(self, "metrics", finite)

    @property
    def is_finished(self) -> bool:
        return self.state == "finished"

    @property
    def name(self) -> str:
        """The point with its seed."""
        return f"{self.point} seed={self.seed}"

    @property
    def role(self) -> Role:
        return role_of(self.params, self.metrics)

    @property
    def temperature(self) -> float | None:
        """None where it is not known."""
        value = self.params.get("objective.temperature")
        return None if value is None else float(value)

    @property
    def source(self) -> str:
        """Where its clusters come from, with the objective where that is not Cl-InfoNCE: `kmeans`, `pcl kmeans`."""
        objective = self.params.get("objective.name", "cl-infonce")
        source = self.params.get("clusters.source", "kmeans")
        return source if objective == "cl-infonce" else f"{objective} {source}"


@dataclass(frozen=True)
class Sweep:
    """A sweep's name and its trials, in the order in which they began.

    Attributes:
        metric: by which its points are ranked.
        num_images, num_test_images, num_validation_images: where they are known.
        untrained: metrics of the encoder before any training, where they were measured.
        skipped: trials that the prescreen left out, with the figures of their clusters.
    """

    name: str
    trials: list[TrialResult]
    metric: str = "eval/linear_accuracy"
    num_images: int | None = None
    num_test_images: int | None = None
    num_validation_images: int | None = None
    untrained: dict[str, float] = field(default_factory=dict)
    skipped: list[TrialResult] = field(default_factory=list)

    @property
    def start(self) -> str:
        """What its trials start from, in words."""
        is_given = any(trial.params.get("encoder.weights", "None") != "None" for trial in self.trials)
        return "encoder as given" if is_given else "untrained encoder"
