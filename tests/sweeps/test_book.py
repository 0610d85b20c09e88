from collections.abc import Callable
from pathlib import Path

from clray.config import Config
from clray.sweeps.book import POINTS_FILE, TrialBook
from clray.sweeps.search_space import plan_sweep
from clray.sweeps.trials import write_outcome

MakeConfig = Callable[..., Config]
SPACE = [{"clusters.num_clusters": {"grid_search": [2, 3, 4]}}]
WIDE = [{"objective.temperature": {"loguniform": [0.05, 1.0]}}]


def test_what_is_over_is_not_dealt_again(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(search_space=SPACE)
    plan = plan_sweep(config)
    book = TrialBook(config, plan, tmp_path)
    finished, pruned, failed = book.records
    for record, state, reason in (
        (finished, "finished", None),
        (pruned, "pruned", "dominated"),
        (failed, "failed", None),
    ):
        record.state, record.reason, record.metrics, record.seconds = state, reason, {"epoch": 3}, 1.5
        write_outcome(record)
    again = TrialBook(config, plan, tmp_path)
    assert [record.state for record in again.records] == ["finished", "pruned", "pending"]
    assert again.records[1].reason == "dominated"
    assert again.next_open() is again.records[2]
    assert again.next_open() is None


def test_suggested_points_are_remembered_with_their_seeds(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(search_space=WIDE, sweep={"searcher": "optuna", "num_samples": 3, "seeds": 2})
    plan = plan_sweep(config)
    assert plan.num_trials == 6
    book = TrialBook(config, plan, tmp_path)
    assert book.next_open() is None
    first = book.add_suggested({"objective.temperature": 0.2})
    assert [record.point.overrides["seed"] for record in first] == [0, 1]
    with (tmp_path / POINTS_FILE).open("a") as file:
        file.write('{"objective.temp')  # a kill in the middle of a line
    again = TrialBook(config, plan, tmp_path)
    assert [record.point.name for record in again.records] == ["t=0.2 seed=0", "t=0.2 seed=1"]
    assert not again.is_complete
