"""How a search space is walked."""

import difflib
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from clray.config.sections.values import Flag, NonNegativeInt, PositiveInt, Scale, Section, Text, TwoOrMore, or_own

SEARCHERS = ("grid", "random", "optuna")
AUTO = "auto"
"""What the data allow."""
LABELLED = (
    "eval/linear_accuracy", "eval/knn_accuracy", "eval/linear_balanced_accuracy",
    "eval/linear_mean_average_precision", "eval/knn_mean_average_precision",
)  # fmt: skip
"""Measures that need labels; with several label columns those of a further one end in its name."""
LABEL_FREE = (
    "eval/rankme", "eval/silhouette", "eval/stability", "eval/confident_fraction", "train/embedding_spread",
)  # fmt: skip
"""Measures that need none; the first ranks where there are no labels."""


def needs_labels(metric: str) -> bool:
    """Whether a measure is known for labelled images alone."""
    return metric not in LABEL_FREE


class SweepConfig(Section):
    """How the search space is walked."""

    searcher: Annotated[Text, or_own(*SEARCHERS)] = "grid"
    """`grid` takes every combination of the grids, and draws the other domains `num_samples` times; `random` draws
    everything; `optuna` suggests points by TPE; `module:Class` is any searcher of Ray Tune (`allow_user_modules`)."""
    searcher_options: dict[Text, Any] = Field(default={})
    """Further arguments of a `module:Class`."""
    num_samples: PositiveInt = 1
    """How many points are drawn; for `grid`, how often, as each draw repeats the grids."""
    seeds: PositiveInt = 1
    """Each point is run with so many seeds, `seed` and those after it."""
    scheduler: Literal["fifo", "asha", "median", "pbt"] = "fifo"
    """Which trials are stopped early: none, those behind the best 1/`reduction_factor` at an epoch (ASHA), those below
    the median; or population-based training, which changes `mutated` keys of the trials that lag behind."""
    grace_epochs: PositiveInt = 1
    """No trial is stopped before."""
    reduction_factor: TwoOrMore = 3
    """Of ASHA: one trial in this many continues, to this many times the epochs."""
    perturb_every_epochs: PositiveInt = 5
    """Of population-based training."""
    mutated: tuple[Text, ...] = ("objective.temperature", "train.learning_rate")
    """Of population-based training: the keys of the search space that may change while a trial runs."""
    stop_dominated: Flag = False
    """Stop a trial whose clusters are dominated: at the same epoch another trial's have higher I(Z;T) and lower H(Z|T),
    and its accuracy is higher."""
    minimize_cost: Flag = False
    """With `optuna`: search for high accuracy and few seconds at once."""
    max_failures: NonNegativeInt = 0
    """How often a failed trial is tried again, from its last checkpoint."""
    fail_fast: Flag = False
    """End the sweep at the first trial that fails for good."""
    max_concurrent_trials: PositiveInt | None = None
    """By default as many as the cluster's resources allow."""
    share_warmup: Flag = True
    """Train the epochs before the first clustering once for all trials that agree in everything that acts before it;
    the others start from there, with the same weights as if each had trained them."""
    prescreen: Flag = False
    """Look at the clusters of all points once the shared epochs are trained, and leave out points whose clusters tell
    no more than chance, or are dominated: another point's have at least the I(Z;T) above chance at no more H(Z|T), or
    without labels more stability and silhouette. Points are compared that differ in their clusters alone."""
    prescreen_keep: Scale = 1.0
    """With `prescreen`: of points that are compared train at most this share, those of the highest AMI, or without
    labels of the highest stability."""
    metric: Text = AUTO
    """Ranks the trials, colours the picture, and tells which epoch of a run is the best. `auto` is the accuracy of the
    linear probe (`eval/linear_accuracy`), or without labels `eval/rankme`. Further measures, of which more is better:
    `eval/knn_accuracy`, `eval/linear_balanced_accuracy`, for several labels an image
    `eval/linear_mean_average_precision` and `eval/knn_mean_average_precision`, and of what needs no labels
    `eval/silhouette`, `eval/stability`, `eval/confident_fraction` and `train/embedding_spread`."""

    @model_validator(mode="after")
    def _metric_is_known(self) -> "SweepConfig":
        base = "/".join(self.metric.split("/")[:2])
        if self.metric not in (AUTO, *LABEL_FREE) and base not in LABELLED:
            near = difflib.get_close_matches(self.metric, (*LABELLED, *LABEL_FREE), n=1, cutoff=0.4)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            known = ", ".join((AUTO, *LABELLED, *LABEL_FREE))
            raise ValueError(f"metric must be one of {known}; got {self.metric!r}{hint}")
        return self

    @model_validator(mode="after")
    def _is_known(self) -> "SweepConfig":
        if self.searcher not in SEARCHERS and ":" not in self.searcher:
            near = difflib.get_close_matches(self.searcher, SEARCHERS, n=1, cutoff=0.4)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ValueError(
                f"searcher must be one of {', '.join(SEARCHERS)}, or module:Class; got {self.searcher!r}{hint}"
            )
        if self.minimize_cost and self.searcher != "optuna":
            raise ValueError(f"minimize_cost needs searcher optuna, which knows several goals; got {self.searcher!r}")
        return self

    @property
    def is_sequential(self) -> bool:
        """Whether the points depend on the results of those before."""
        return self.searcher not in ("grid", "random")

    @property
    def stops_early(self) -> bool:
        return self.scheduler != "fifo" or self.stop_dominated
