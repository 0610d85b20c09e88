from collections.abc import Callable
from pathlib import Path

import pytest
from ray.tune.search import Searcher

from clray.config import Config, parse_config
from clray.errors import UserError
from clray.sweeps.book import TrialBook
from clray.sweeps.search_space import plan_sweep
from clray.sweeps.searchers import COST, BookSearcher, build_searcher

MakeConfig = Callable[..., Config]
SPACE = [{"objective.temperature": {"uniform": [0.05, 1.0]}, "clusters.num_clusters": {"randint": [2, 50]}}]
ACCURACY = "eval/linear_accuracy"


def searcher_of(config: Config, folder: Path) -> BookSearcher:
    plan = plan_sweep(config)
    return BookSearcher(TrialBook(config, plan, folder), build_searcher(config, plan, folder))


def play(searcher: BookSearcher, prefix: str, *, count: int = 1000) -> list[dict]:
    """Run trials whose accuracy is best at temperature 0.3; returns what was suggested."""
    suggested = []
    while len(suggested) < count:
        trial_id = f"{prefix}{len(suggested)}"
        point = searcher.suggest(trial_id)
        if point == Searcher.FINISHED:
            break
        accuracy = 1 - (point["objective.temperature"] - 0.3) ** 2
        result = {"eval/linear_accuracy": accuracy, COST: point.get("clusters.num_clusters", 1)}
        searcher.on_trial_complete(trial_id, result)
        suggested.append(point)
    return suggested


def test_optuna_comes_near_the_best_temperature(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(search_space=SPACE, sweep={"metric": ACCURACY, "searcher": "optuna", "num_samples": 60})
    points = play(searcher_of(config, tmp_path), "a")
    assert [point["point"] for point in points] == list(range(60))
    late = [abs(point["objective.temperature"] - 0.3) for point in points[40:]]
    assert sorted(late)[len(late) // 2] < 0.12, "a uniform draw would be 0.23 away"


def test_optuna_goes_on_with_what_it_has_learnt(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(search_space=SPACE, sweep={"metric": ACCURACY, "searcher": "optuna", "num_samples": 45})
    play(searcher_of(config, tmp_path), "a", count=30)
    again = searcher_of(config, tmp_path)
    assert len(again.inner._ot_study.trials) == 30
    assert len(again.book.records) == 30


def test_repeats_of_a_point_are_told_as_their_mean(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(
        search_space=SPACE, sweep={"metric": ACCURACY, "searcher": "optuna", "num_samples": 2, "seeds": 2}
    )
    searcher = searcher_of(config, tmp_path)
    points = [searcher.suggest(f"t{i}") for i in range(2)]
    assert points[0]["objective.temperature"] == points[1]["objective.temperature"]
    assert {point["seed"] for point in points} == {0, 1}
    for i, accuracy in enumerate((0.4, 0.6)):
        searcher.on_trial_complete(f"t{i}", {"eval/linear_accuracy": accuracy})
    (trial,) = searcher.inner._ot_study.trials
    assert trial.value == pytest.approx(0.5)


def test_a_searcher_does_not_go_after_clusters_that_are_the_labels(tiny_config: MakeConfig, tmp_path: Path) -> None:
    space = [{"clusters.source": {"choice": ["kmeans", "labels"]}, "objective.temperature": {"uniform": [0.1, 1.0]}}]
    config = tiny_config(search_space=space, sweep={"metric": ACCURACY, "searcher": "optuna", "num_samples": 12})
    searcher = searcher_of(config, tmp_path)
    play(searcher, "a")
    trials = searcher.inner._ot_study.trials
    by_source = {trial.params["clusters.source"]: trial.state.name for trial in trials}
    assert by_source == {"kmeans": "COMPLETE", "labels": "FAIL"}


def test_optuna_weighs_accuracy_against_cost(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(
        search_space=SPACE, sweep={"metric": ACCURACY, "searcher": "optuna", "num_samples": 30, "minimize_cost": True}
    )  # fmt: skip
    searcher = searcher_of(config, tmp_path)
    play(searcher, "a")
    best = searcher.inner._ot_study.best_trials
    assert len(best) >= 2, "a front, from accurate to cheap"
    for one in best:
        assert not any(o.values[0] > one.values[0] and o.values[1] < one.values[1] for o in best)


def test_a_searcher_of_ray_tune_by_its_class(tiny_config: MakeConfig, tmp_path: Path) -> None:
    config = tiny_config(
        search_space=SPACE,
        sweep={
            "metric": ACCURACY,
            "searcher": "ray.tune.search.optuna:OptunaSearch",
            "num_samples": 3,
            "searcher_options": {"seed": 1},
        },
        allow_user_modules=True,
    )
    assert len(play(searcher_of(config, tmp_path), "a")) == 3
    for name, message in (("nowhere:Class", "cannot be imported"), ("builtins:dict", "not a searcher")):
        wrong = config.model_copy(update={"sweep": config.sweep.model_copy(update={"searcher": name})})
        with pytest.raises(UserError, match=message):
            searcher_of(wrong, tmp_path)


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ({"searcher": "optna"}, "did you mean 'optuna'"),
        ({"searcher": "my:Class"}, "allow it with allow_user_modules=true"),
        ({"minimize_cost": True}, "minimize_cost needs searcher optuna"),
        ({"scheduler": "asha"}, "set evaluate.every_epochs"),
        ({"stop_dominated": True}, r"sweep\.stop_dominated=true compares accuracies"),
    ],
)
def test_what_cannot_work_is_refused_with_the_way_out(sweep: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_config({"sweep": sweep})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"sweep": {"perturb_every_epochs": 3}}, r"must be a multiple of evaluate\.every_epochs=2; got 3"),
        ({"train": {"num_workers": 2}, "sweep": {"perturb_every_epochs": 2}}, r"needs train\.num_workers=1"),
        (
            {"search_space": [{"clusters.num_clusters": {"grid_search": [2]}}], "sweep": {"perturb_every_epochs": 2}},
            r"none of sweep\.mutated",
        ),
    ],
)
def test_population_based_training_that_cannot_work_is_refused(tree: dict, message: str) -> None:
    tree = {**tree, "evaluate": {"every_epochs": 2}, "sweep": {"scheduler": "pbt", **tree["sweep"]}}
    with pytest.raises(UserError, match=message):
        parse_config(tree)
