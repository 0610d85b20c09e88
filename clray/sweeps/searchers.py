"""Ray Tune's way of asking for the next trial, answered from the book, and where it is empty by a searcher."""

import logging
from pathlib import Path
from statistics import fmean
from typing import Any

from ray.tune.search import Searcher

from clray.config import Config
from clray.errors import UserError
from clray.seeding import derive_seed
from clray.sweeps.book import TrialBook
from clray.sweeps.domains import tune_domain
from clray.sweeps.search_space import SweepPlan
from clray.sweeps.trials import TrialRecord
from clray.user_code import import_named

COST = "train/total_seconds"
"""What `sweep.minimize_cost` minimizes: the seconds of a trial, summed over its epochs."""
OPTUNA_FILE = "optuna.journal"
log = logging.getLogger(__name__)


def build_searcher(config: Config, plan: SweepPlan, folder: Path) -> Searcher | None:
    """Optuna, or the class of the user's; None where all points are known.

    Optuna keeps its study in the sweep's folder, so that a resumed sweep keeps what it has learnt.

    Raises:
        UserError: no such module or class, or one that does not take these domains.
    """
    sweep = config.sweep
    if not sweep.is_sequential:
        return None
    space = {domain.key: tune_domain(domain) for domain in plan.domains}
    if sweep.searcher == "optuna":
        import optuna
        from optuna.storages.journal import JournalFileBackend
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        folder.mkdir(parents=True, exist_ok=True)
        return OptunaSearch(
            # Ray would take the dots of the keys for nested dicts.
            OptunaSearch.convert_search_space(space),
            metric=[sweep.metric, COST] if sweep.minimize_cost else sweep.metric,
            mode=["max", "min"] if sweep.minimize_cost else "max",
            seed=derive_seed(config.seed, "search space") % 2**32,
            study_name=folder.name,
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(folder / OPTUNA_FILE))),
        )
    found = import_named(sweep.searcher, "sweep.searcher")
    try:
        searcher = found(metric=sweep.metric, mode="max", **sweep.searcher_options)
    except (TypeError, ValueError, AssertionError) as error:
        raise UserError(f"sweep.searcher={sweep.searcher}: cannot be made: {error}") from error
    if not isinstance(searcher, Searcher) or not searcher.set_search_properties(sweep.metric, "max", space):
        raise UserError(f"sweep.searcher={sweep.searcher}: not a searcher of Ray Tune that takes this search space")
    return searcher


class BookSearcher(Searcher):
    """Deals the trials of the book; asks the inner searcher for a point where no trial is open."""

    def __init__(self, book: TrialBook, inner: Searcher | None) -> None:
        super().__init__(metric=book.config.sweep.metric, mode="max")
        self.book, self.inner = book, inner
        self.dealt: dict[str, TrialRecord] = {}
        self.groups: dict[int, tuple[str, list[TrialRecord]]] = {}
        """For each trial of a point that was suggested: the point's id with the searcher, and its repeats."""

    def suggest(self, trial_id: str) -> Any:
        """The point's number and what it overrides; None while a searcher waits; FINISHED, a text, at the end."""
        record = self.book.next_open()
        if record is None and self.inner is not None and not self.book.is_complete:
            overrides: Any = self.inner.suggest(trial_id)  # or FINISHED, a text
            if overrides is None:
                return None
            if overrides != Searcher.FINISHED:
                repeats = self.book.add_suggested({key: _plain(value) for key, value in overrides.items()})
                self.groups |= {each.point.index: (trial_id, repeats) for each in repeats}
                record = self.book.next_open()
        if record is None:
            return None if self.book.is_waiting else Searcher.FINISHED
        self.dealt[trial_id] = record
        return {"point": record.point.index, **record.point.overrides}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        record = self.dealt[trial_id]
        if self.inner is None or record.point.index not in self.groups:
            return
        group, repeats = self.groups[record.point.index]
        # Of a reference a searcher hears nothing: it would go after clusters that are the labels.
        is_known = result is not None and not error and not self.book.is_apart(record)
        record.told = {name: result[name] for name in self._goals if name in result} if result and is_known else {}
        if all(each.told is not None for each in repeats):
            told = [each.told for each in repeats if each.told]
            means = {name: fmean(each[name] for each in told if name in each) for name in told[0]} if told else {}
            self.inner.on_trial_complete(group, means or None, error=not means)

    @property
    def _goals(self) -> tuple[str, ...]:
        return (self.book.config.sweep.metric, COST)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the book and Optuna's journal hold what a resumed sweep needs."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, as for `save`."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune saves its searcher with the state of an experiment, from which nothing is restored


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
