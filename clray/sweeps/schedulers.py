"""Which trials are stopped before their last epoch: Ray Tune's schedulers, and the information plane."""

from types import SimpleNamespace
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)

from clray.config import Config
from clray.report.roles import TIE
from clray.sweeps.book import TrialBook
from clray.sweeps.domains import tune_domain
from clray.sweeps.search_space import SweepPlan
from clray.sweeps.trials import TrialRecord

INFORMATION, NOISE = "clusters/mutual_information_bits", "clusters/conditional_entropy_bits"


def build_scheduler(config: Config, plan: SweepPlan) -> TrialScheduler:
    """The scheduler that `sweep.scheduler` names."""
    sweep = config.sweep
    common: dict[str, Any] = {"time_attr": "epoch", "metric": sweep.metric, "mode": "max"}
    if sweep.scheduler == "asha":
        return AsyncHyperBandScheduler(
            **common,
            # A trial ends by itself at its last epoch, and leaves its checkpoint there.
            max_t=max(point.config.train.num_epochs for point in plan.samples) + 1,
            grace_period=sweep.grace_epochs,
            reduction_factor=sweep.reduction_factor,
        )
    if sweep.scheduler == "median":
        return MedianStoppingRule(**common, grace_period=sweep.grace_epochs, min_samples_required=3)
    if sweep.scheduler == "pbt":
        return PopulationOfTrials(
            **common,
            perturbation_interval=sweep.perturb_every_epochs,
            hyperparam_mutations={d.key: tune_domain(d) for d in plan.domains if d.key in sweep.mutated},
            require_attrs=False,
            log_config=False,
        )
    return FIFOScheduler()


class PopulationOfTrials(PopulationBasedTraining):
    """A trial that takes over another's weights and settings stays the trial it is: it keeps its number."""

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        config, operations = super()._get_new_config(trial, trial_to_clone)
        return {**config, "point": trial.config["point"]}, operations


class Judge(TrialScheduler):
    """Asks the scheduler, then the information plane, and keeps in the book why a trial was stopped.

    A trial is dominated where another had, at the same epoch, higher I(Z;T), lower H(Z|T) and higher accuracy, each by
    more than rounding: its clusters told more about the labels, held less besides, and were worth more.

    Beside candidates, reference points take no part. Clusters that are the labels would dominate every candidate, and
    population-based training would hand their weights on; and a reference that is stopped is none.
    """

    def __init__(self, inner: TrialScheduler, book: TrialBook) -> None:
        self.inner, self.book = inner, book
        self.seen: dict[int, list[tuple[TrialRecord, float, float, float]]] = {}
        """By epoch: what each trial measured there."""
        self.open: dict[str, Trial] = {}
        """Trials that have not ended, by Ray Tune's ids and in its order."""

    def on_trial_result(self, controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        record, sweep = self._record(trial), self.book.config.sweep
        if self.book.is_apart(record):
            return self.CONTINUE
        decision = self.inner.on_trial_result(controller, trial, result)
        if decision == self.STOP:
            record.reason = f"stopped by {sweep.scheduler} at epoch {result['epoch']}"
            return decision
        better = self._dominating(record, result) if sweep.stop_dominated else None
        is_over = result["epoch"] >= record.point.config.train.num_epochs
        if better is None or is_over or decision != self.CONTINUE:
            return decision
        record.reason = f"dominated by {better.point.name} at epoch {result['epoch']}"
        return self.STOP

    def _dominating(self, record: TrialRecord, result: dict[str, Any]) -> TrialRecord | None:
        sweep, epoch = self.book.config.sweep, int(result["epoch"])
        if sweep.metric not in result or epoch < sweep.grace_epochs:
            return None
        own = (result[INFORMATION], result[NOISE], result[sweep.metric])
        others = self.seen.setdefault(epoch, [])
        others.append((record, *own))
        found = [
            (accuracy, other)
            for other, information, noise, accuracy in others
            if information > own[0] + TIE and noise < own[1] - TIE and accuracy > own[2] + TIE
        ]
        return max(found, key=lambda each: each[0])[1] if found else None

    def _record(self, trial: Trial) -> TrialRecord:
        return self.book.record(trial.config["point"])

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        return self.inner.set_search_properties(metric, mode, **spec)

    def on_trial_add(self, controller: Any, trial: Trial) -> None:  # noqa: ARG002
        self.open[trial.trial_id] = trial
        # Population-based training refuses searchers, which would learn from configs that change; the book does not.
        without_searcher: Any = SimpleNamespace(search_alg=None)
        self.inner.on_trial_add(without_searcher, trial)

    def on_trial_error(self, controller: Any, trial: Trial) -> None:
        self.open.pop(trial.trial_id, None)  # one that is tried again is added again
        self.inner.on_trial_error(controller, trial)

    def on_trial_complete(self, controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self.open.pop(trial.trial_id, None)
        if not self.book.is_apart(self._record(trial)):
            self.inner.on_trial_complete(controller, trial, result)

    def on_trial_remove(self, controller: Any, trial: Trial) -> None:
        self.open.pop(trial.trial_id, None)
        self.inner.on_trial_remove(controller, trial)

    def choose_trial_to_run(self, controller: Any) -> Trial | None:  # noqa: ARG002
        # The schedulers look through all trials, and are asked some eight times a trial: of 10,000 most have ended.
        with_open_ones: Any = SimpleNamespace(get_trials=lambda: list(self.open.values()))
        return self.inner.choose_trial_to_run(with_open_ones)

    def debug_string(self) -> str:
        return self.inner.debug_string()

    def __getstate__(self) -> dict[str, Any]:
        return {}  # as of the searcher
