from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from clray.config import Config, parse_config
from clray.sweeps.book import TrialBook
from clray.sweeps.schedulers import INFORMATION, NOISE, Judge, build_scheduler
from clray.sweeps.search_space import plan_sweep

MakeConfig = Callable[..., Config]


def judge_of(folder: Path, count: int, **sweep: object) -> Judge:
    space = {"objective.temperature": {"grid_search": [round(0.1 + i / 100, 3) for i in range(count)]}}
    tree = {
        "train": {"num_epochs": 10},
        "evaluate": {"every_epochs": 1},
        "sweep": {"metric": "eval/linear_accuracy", "stop_dominated": True, **sweep},
        "search_space": space,
    }
    config = parse_config(tree)
    plan = plan_sweep(config)
    return Judge(build_scheduler(config, plan), TrialBook(config, plan, folder))


def hear(judge: Judge, point: int, epoch: int, values: tuple[float, float, float]) -> str:
    result = dict(zip((INFORMATION, NOISE, "eval/linear_accuracy"), values, strict=True)) | {"epoch": epoch}
    return judge.on_trial_result(None, trial_of(point), result)


def trial_of(point: int) -> SimpleNamespace:
    return SimpleNamespace(config={"point": point}, trial_id=str(point), status="RUNNING")


VALUES = st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4))


@settings(deadline=None, max_examples=60)
@given(st.lists(VALUES, min_size=2, max_size=10))
def test_a_trial_is_stopped_exactly_where_another_before_it_dominates(values: list[tuple[int, int, int]]) -> None:
    judge = judge_of(Path("nowhere"), len(values))
    for point, own in enumerate(values):
        dominated = any(v[0] > own[0] and v[1] < own[1] and v[2] > own[2] for v in values[:point])
        decision = hear(judge, point, 2, own)
        assert decision == (TrialScheduler.STOP if dominated else TrialScheduler.CONTINUE)
        reason = judge.book.records[point].reason
        assert (reason is not None) == dominated
        assert not dominated or reason.startswith("dominated by t=")


def test_only_the_same_epoch_counts_and_neither_the_first_nor_the_last_stops(tmp_path: Path) -> None:
    judge = judge_of(tmp_path, 2, grace_epochs=3)
    for epoch in (2, 5, 10):
        assert hear(judge, 0, epoch, (3, 1, 3)) == TrialScheduler.CONTINUE
    assert hear(judge, 1, 2, (1, 2, 1)) == TrialScheduler.CONTINUE, "within the grace"
    assert hear(judge, 1, 4, (1, 2, 1)) == TrialScheduler.CONTINUE, "none was seen at this epoch"
    assert hear(judge, 1, 10, (1, 2, 1)) == TrialScheduler.CONTINUE, "it ends by itself"
    assert hear(judge, 1, 5, (1, 2, 1)) == TrialScheduler.STOP


def roles_judge(folder: Path, **sweep: object) -> Judge:
    """Of a k-means trial, one with the labels as clusters, and InfoNCE."""
    space = [
        {"clusters.source": "kmeans"},
        {"objective.name": "supcon"},
        {"objective.name": "infonce"},
        {"clusters.source": "kmeans", "clusters.num_clusters": 7},
    ]
    tree = {
        "train": {"num_epochs": 10},
        "evaluate": {"every_epochs": 1},
        "sweep": {"metric": "eval/linear_accuracy", **sweep},
        "search_space": space,
    }
    config = parse_config(tree)
    plan = plan_sweep(config)
    return Judge(build_scheduler(config, plan), TrialBook(config, plan, folder))


def test_clusters_that_are_the_labels_dominate_no_candidate(tmp_path: Path) -> None:
    judge = roles_judge(tmp_path, stop_dominated=True)
    assert hear(judge, 1, 2, (3.3, 0.0, 0.95)) == TrialScheduler.CONTINUE
    assert hear(judge, 0, 2, (1.0, 2.0, 0.50)) == TrialScheduler.CONTINUE
    assert hear(judge, 3, 2, (0.9, 2.1, 0.49)) == TrialScheduler.STOP, "another candidate does"


def test_no_reference_is_stopped_early(tmp_path: Path) -> None:
    judge = roles_judge(tmp_path, scheduler="asha", reduction_factor=2, stop_dominated=True)
    for point in range(4):
        judge.on_trial_add(None, trial_of(point))
    hear(judge, 0, 1, (3.0, 0.0, 0.9))
    assert hear(judge, 2, 1, (2.0, 1.0, 0.1)) == TrialScheduler.CONTINUE, "InfoNCE"
    assert hear(judge, 1, 1, (2.0, 1.0, 0.1)) == TrialScheduler.CONTINUE, "SupCon"
    assert hear(judge, 3, 1, (2.0, 1.0, 0.1)) == TrialScheduler.STOP


def test_a_difference_of_rounding_dominates_nothing(tmp_path: Path) -> None:
    judge = judge_of(tmp_path, 2)
    hear(judge, 0, 2, (1.0 + 4e-16, 2.0 - 4e-16, 0.9))
    assert hear(judge, 1, 2, (1.0, 2.0, 0.5)) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("name", ["fifo", "asha", "median", "pbt"])
def test_every_scheduler_is_made_from_its_name(name: str, tmp_path: Path) -> None:
    judge = judge_of(tmp_path, 3, scheduler=name)
    assert isinstance(judge.inner, FIFOScheduler)  # all of them derive from it
    assert (
        type(judge.inner).__name__.lower().startswith({"asha": "asynchyperband", "pbt": "population"}.get(name, name))
    )


def test_a_trial_to_run_is_looked_for_among_those_that_have_not_ended(tmp_path: Path) -> None:
    """In their order; to look through all of 10,000 at every step took more time than the trials."""
    looked_at: list[int] = []

    class Trial(SimpleNamespace):
        @property
        def status(self) -> str:
            looked_at.append(self.config["point"])
            return "PENDING"

    judge = judge_of(tmp_path, 6)
    trials = [Trial(config={"point": point}, trial_id=str(point)) for point in range(6)]
    controller = SimpleNamespace(get_trials=lambda: trials)
    for trial in trials:
        judge.on_trial_add(controller, trial)
    judge.on_trial_complete(controller, trials[0], {})
    judge.on_trial_error(controller, trials[1])  # and is tried again, after the others
    judge.on_trial_add(controller, trials[1])
    judge.on_trial_error(controller, trials[2])
    judge.on_trial_remove(controller, trials[3])
    order = []
    for _ in range(3):
        chosen = judge.choose_trial_to_run(controller)
        assert chosen is not None
        order.append(chosen.config["point"])
        judge.on_trial_complete(controller, chosen, {})
    assert judge.choose_trial_to_run(controller) is None
    assert order == [4, 5, 1]
    assert looked_at == order
