"""What a sweep would do and which of its points are worth it, before it runs; nothing is kept and nothing recorded."""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from clray.config.objects import read_with_objects, require_modules
from clray.config.source import Source
from clray.preparing import prepare_sweep, with_metric_told
from clray.progress import Observer

if TYPE_CHECKING:
    from clray.sweeps.dry_run import Estimate
    from clray.sweeps.prescreen import Prescreen
    from clray.sweeps.search_space import SweepPlan


def advise(
    source: Source,
    overrides: Mapping[str, Any] | None = None,
    *,
    verbose: bool = False,
    observer: Observer | None = None,
) -> "Prescreen":
    """Which points of a search space have clusters that are worth training with, by their first clusters.

    Trains the epochs that points share until their first clustering, keeps nothing and records nothing.

    Example:
        >>> clray.advise("tune_configs/quickstart.yaml").left_out

    Raises:
        UserError: as `sweep`; points that are not known before the sweep, as with `sweep.searcher=optuna`.
    """
    config = read_with_objects(source, {**(overrides or {}), "sweep.prescreen": True, "sweep.share_warmup": True})
    require_modules(config)
    observer = observer or Observer()
    with observer.preparing("training what points share, to look at their clusters"):
        plan, folder, data, clusters = prepare_sweep(config, source, None, False, observer)
        config = with_metric_told(config, data, observer)
        from clray.sweeps.prescreen import prescreen
        from clray.sweeps.tuner import gpus_for_trials, shared_service, start_for_sweep

        num_at_once = start_for_sweep(config, plan.samples, data, verbose=verbose)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (
            TemporaryDirectory(prefix=f"{folder.name}.advise.", dir=folder.parent) as place,
            shared_service(config, plan) as service,
        ):
            return prescreen(
                config, plan, data, Path(place), clusters=clusters, service=service,
                num_gpus=gpus_for_trials(config, plan.samples), num_at_once=num_at_once,
            )  # fmt: skip


def estimate_sweep(
    source: Source,
    overrides: Mapping[str, Any] | None = None,
    *,
    verbose: bool = False,
    observer: Observer | None = None,
) -> "tuple[SweepPlan, Estimate]":
    """What a sweep would do, judged by timed steps; trains and writes nothing.

    Raises:
        UserError: as `sweep`.
    """
    config = read_with_objects(source, overrides)
    observer = observer or Observer()
    with observer.preparing("preparing data and Ray, and timing steps"):
        plan, _, data, _ = prepare_sweep(config, source, None, False, observer)
        config = with_metric_told(config, data, observer)
        from clray.sweeps.dry_run import estimate
        from clray.sweeps.tuner import gpus_for_trials, start_for_sweep

        num_at_once = start_for_sweep(config, plan.samples, data, verbose=verbose)
        return plan, estimate(config, plan, data, num_at_once, gpus_for_trials(config, plan.samples))
