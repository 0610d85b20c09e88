import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from ray.tune.schedulers import TrialScheduler

from clray.config import Config
from clray.errors import UserError
from clray.sweeps.book import POINTS_FILE, TrialBook
from clray.sweeps.schedulers import Judge, build_scheduler
from clray.sweeps.search_space import plan_sweep
from clray.sweeps.trials import OUTCOME_FILE, TrialRecord, write_outcome

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


@pytest.mark.parametrize(
    "line",
    [
        {"allow_user_modules": True, "encoder.name": "planted:build"},
        {"encoder.name": "planted:build"},
        {"encoder.name": "resnet18", "objective.temperature": 0.2, "output": "/elsewhere"},
        {"objective.temperature": "planted"},
        {"objective.temperature": True},
        ["planted"],
        "planted",
    ],
)
def test_a_suggested_point_from_a_storage_cannot_leave_the_search_space(
    line: object, tiny_config: MakeConfig, tmp_path: Path
) -> None:
    space = [{**WIDE[0], "encoder.name": {"choice": ["small_cnn", "resnet18"]}}]
    config = tiny_config(search_space=space, sweep={"searcher": "optuna"}, allow_user_modules=True)
    (tmp_path / POINTS_FILE).write_text(json.dumps(line) + "\n")
    with pytest.raises(UserError, match=r"points\.jsonl, line 1: "):
        TrialBook(config, plan_sweep(config), tmp_path)


def test_an_outcome_from_a_storage_changes_what_was_searched_and_nothing_else(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config(search_space=[{"clusters.num_clusters": {"grid_search": [2]}}])
    plan = plan_sweep(config)
    (record,) = TrialBook(config, plan, tmp_path).records
    record.state = "finished"
    record.changed = {"clusters.num_clusters": 3, "allow_user_modules": True, "encoder.name": "planted:build"}
    write_outcome(record)
    assert (record.folder / OUTCOME_FILE).exists()
    (read,) = TrialBook(config, plan, tmp_path).records
    assert read.changed == {"clusters.num_clusters": 3}


def test_two_hundred_damaged_outcomes_are_read_or_the_trial_is_run_again(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config(search_space=SPACE)
    plan = plan_sweep(config)
    record = TrialBook(config, plan, tmp_path).records[0]
    record.state, record.metrics = "finished", {"epoch": 3, "eval/linear_accuracy": float("nan"), "train/loss": 0.5}
    write_outcome(record)
    path, generator = record.folder / OUTCOME_FILE, np.random.default_rng(0)
    assert TrialBook(config, plan, tmp_path).records[0].epoch == 3
    whole = path.read_bytes()
    for case in range(200):
        content = bytearray(whole)
        start = int(generator.integers(len(content)))
        if case % 2:
            content[start : start + int(generator.integers(1, 9))] = generator.bytes(int(generator.integers(9)))
        else:
            del content[start:]
        path.write_bytes(content)
        assert TrialBook(config, plan, tmp_path).records[0].state in ("finished", "pending")
    for tree in ([], {"state": "finished"}, {**json.loads(whole), "metrics": {"a": "b"}}):
        path.write_text(json.dumps(tree))
        assert TrialBook(config, plan, tmp_path).records[0].state == "pending"


def test_a_damaged_list_of_points_is_named(tiny_config: MakeConfig, tmp_path: Path) -> None:
    """Without its line the points after it would be taken for other trials."""
    config = tiny_config(search_space=WIDE, sweep={"searcher": "optuna", "num_samples": 3})
    (tmp_path / POINTS_FILE).write_bytes(b'{"objective.temperature": 0.2}\n{"obj\xff\n{"objective.temperature": 0.3}\n')
    with pytest.raises(UserError, match=r"points\.jsonl, line 2: .* damaged"):
        TrialBook(config, plan_sweep(config), tmp_path)


def test_trials_are_found_by_their_numbers_where_points_are_left_out(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(search_space=SPACE, evaluate={"every_epochs": 1}, sweep={"share_warmup": False})
    whole = plan_sweep(config)
    plan = replace(whole, points=whole.points[1:], num_trials=2)
    book = TrialBook(config, plan, tmp_path)
    assert book.first_number == 1
    judge = Judge(build_scheduler(config, plan), book)
    for record in book.records:
        assert book.next_open() is record
        number = record.point.index
        assert book.record(number) is record
        trial = SimpleNamespace(config={"point": number}, trial_id=str(number), status="RUNNING")
        assert judge.on_trial_result(None, trial, {"epoch": 1}) == TrialScheduler.CONTINUE
    book.records[0].state = "skipped"
    assert book.first_number == 2


@pytest.mark.parametrize("num_temperatures", [1, 20])
def test_dealing_looks_at_each_trial_a_few_times_however_many_there_are(
    num_temperatures: int, tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 10,000 trials a look at all of them for each takes minutes; temperatures are trunks of their own."""
    space = {
        "clusters.num_clusters": {"grid_search": list(range(2, 12))},
        "objective.temperature": {"grid_search": [0.1 + number / 100 for number in range(num_temperatures)]},
    }
    config = tiny_config(search_space=[space], train={"num_epochs": 3}, recluster={"warmup_epochs": 1})
    book = TrialBook(config, plan_sweep(config), tmp_path)
    assert len({trunk.folder for trunk in book.trunks.values()}) == num_temperatures
    looks = 0

    def is_open(record: TrialRecord) -> bool:
        nonlocal looks
        looks += 1
        return record.state in ("pending", "running", "stopped")

    monkeypatch.setattr(TrialRecord, "is_open", property(is_open))
    first = [book.next_open() for _ in range(num_temperatures)]
    assert [record.point.index for record in first if record] == list(range(num_temperatures)), "one of each trunk"
    assert book.next_open() is None
    assert book.is_waiting
    for record in first:
        assert record is not None
        record.state = "finished"
    dealt = []
    while (record := book.next_open()) is not None:
        dealt.append(record.point.index)
        record.state = "finished"
    assert dealt == list(range(num_temperatures, 10 * num_temperatures))
    assert not book.is_waiting
    assert looks < 10 * num_temperatures * (num_temperatures + 4)
