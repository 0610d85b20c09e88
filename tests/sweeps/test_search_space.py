import time

import pytest

from clray.config import parse_config
from clray.errors import UserError
from clray.sweeps.search_space import plan_sweep


def points_of(space: object, **tree: object) -> list:
    return plan_sweep(parse_config({"search_space": space, **tree})).points


def test_grids_are_multiplied() -> None:
    points = points_of(
        {"clusters.num_clusters": {"grid_search": [5, 10]}, "objective.temperature": {"grid_search": [0.1, 0.5]}}
    )
    assert [point.name for point in points] == ["k=5 t=0.1", "k=5 t=0.5", "k=10 t=0.1", "k=10 t=0.5"]
    assert points[3].config.clusters.num_clusters == 10
    assert points[3].config.objective.temperature == 0.5


def test_a_list_of_spaces_is_searched_one_by_one() -> None:
    points = points_of(
        [
            {"clusters.num_clusters": {"grid_search": [5, 6]}},
            {"clusters.source": {"grid_search": ["instance", "labels"]}},
        ]
    )
    assert [point.name for point in points] == ["k=5", "k=6", "instance", "labels"]


@pytest.mark.parametrize(
    ("domain", "low", "high"),
    [
        ({"uniform": [0.1, 0.2]}, 0.1, 0.2),
        ({"loguniform": [0.01, 1.0]}, 0.01, 1.0),
        ({"quniform": [0.1, 1.0, 0.1]}, 0.1, 1.0),
        ({"choice": [0.1, 0.3]}, 0.1, 0.3),
    ],
)
def test_random_domains_stay_in_their_range_and_follow_the_seed(domain: dict, low: float, high: float) -> None:
    drawn = [
        [
            p.config.objective.temperature
            for p in points_of({"objective.temperature": domain}, seed=seed, sweep={"num_samples": 8})
        ]
        for seed in (0, 0, 1)
    ]
    assert all(low <= value <= high + 1e-9 for value in drawn[0])
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) > 1


@pytest.mark.parametrize("name", ["randint", "lograndint"])
def test_integer_domains_leave_out_the_upper_bound(name: str) -> None:
    points = points_of({"clusters.num_clusters": {name: [2, 5]}}, sweep={"num_samples": 30})
    assert {point.config.clusters.num_clusters for point in points} == {2, 3, 4}


def test_a_point_name_tells_every_trial_apart() -> None:
    points = points_of({"clusters.num_clusters": {"grid_search": [5, 10]}, "seed": {"grid_search": [0, 1]}})
    assert len({point.name for point in points}) == 4


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"clusters.num_cluster": {"grid_search": [5]}}, r"search_space: unknown key .* 'clusters\.num_clusters'"),
        ({"seed": {"grid": [1]}}, "unknown domain 'grid'.* 'grid_search'"),
        ({"objective.temperature": {"uniform": [0.1]}}, r"expected \[lower, upper\]"),
        ({"objective.temperature": {"uniform": [0.5, 0.1]}}, "lower bound must be below"),
        ({"objective.temperature": {"loguniform": [0.0, 1.0]}}, "starts above 0"),
        ({"objective.temperature": {"uniform": [-1.0, 1.0]}}, r"objective\.temperature .*greater than 0; got -1\.0"),
        ({"objective.temperature": {"uniform": [0.1, float("nan")]}}, r"expected \[lower, upper\], finite numbers"),
        ({"objective.temperature": {"uniform": [0.1, float("inf")]}}, "finite numbers"),
        ({"objective.temperature": {"uniform": [0.1, 10**400]}}, "finite numbers"),
        ({"objective.temperature": {"uniform": [False, True]}}, "finite numbers"),
        ({"objective.temperature": {"uniform": ["a", "b"]}}, "finite numbers"),
        ({"objective.temperature": {"loguniform": [-1.0, 1.0]}}, "starts above 0"),
        ({"objective.temperature": {"quniform": [0.1, 1.0, 0]}}, "the step must be above 0"),
        ({"objective.temperature": {"quniform": [0.1, 1.0, -0.1]}}, "the step must be above 0"),
        ({"objective.temperature": {"quniform": [0.1, 1.0, float("nan")]}}, "finite numbers"),
        ({"objective.temperature": {"quniform": [0.1, 1.0, 0.3]}}, "both bounds multiples of it"),
        ({"objective.temperature": {"quniform": [0.1, 1.0, 5e-324]}}, "both bounds multiples of it"),
        ({"clusters.num_clusters": {"quniform": [2, 10, 0.5]}}, "must be a whole number; got 2.5"),
        ({"clusters.num_clusters": {"uniform": [2, 10]}}, "must be a whole number"),
        ({"clusters.num_clusters": {"randint": [2.5, 10]}}, "whole numbers up to 2147483647"),
        ({"clusters.num_clusters": {"randint": [2, 3000000000]}}, "whole numbers up to 2147483647"),
        ({"clusters.num_clusters": {"lograndint": [0, 5]}}, "starts above 0"),
        ({"clusters.num_clusters": {"choice": []}}, "expected a list of values"),
        ({"clusters.num_clusters": {"choice": 5}}, "expected a list of values; got 5"),
        ({"clusters.num_clusters": {}}, "expected one domain"),
        ({"clusters.num_clusters": {"grid_search": [5], "choice": [5]}}, "expected one domain"),
        ({"clusters.num_clusters": {"grid_search": [[5]]}}, r"num_clusters must be a valid integer; got \[5\]"),
        ({"clusters": {"grid_search": [5]}}, "clusters is a section"),
        ({"clusters.num_clusters": None}, "must be a valid integer; got null"),
        ({"objective.temperature": {"grid_search": [0.1, 0.0]}}, r"trial t=0.*objective\.temperature .*got 0\.0"),
        ({"clusters.num_clusters": {"grid_search": []}}, "expected a list"),
        ({}, "nothing to sweep"),
    ],
)
def test_a_bad_space_is_refused_by_name(space: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        points_of([space] if space else [])


@pytest.mark.parametrize(
    ("space", "sweep", "number"),
    [
        ({"seed": {"grid_search": [1, 2]}}, {"num_samples": 1_000_000_000}, "2,000,000,000"),
        ({"objective.temperature": {"uniform": [0.1, 1.0]}}, {"num_samples": 1_000_000_000}, "1,000,000,000"),
        ({"seed": {"choice": [1, 2]}}, {"num_samples": 1_000_000_000, "searcher": "optuna"}, "1,000,000,000"),
        ({"clusters.num_clusters": {"grid_search": [5]}}, {"seeds": 2_000_000_000}, "2,000,000,000"),
        (
            {
                key: {"grid_search": list(range(2, 102))}
                for key in ("clusters.num_clusters", "clusters.level", "clusters.num_splits", "train.num_epochs")
            },
            {},
            "100,000,000",
        ),
    ],
)
def test_a_sweep_of_too_many_trials_is_counted_and_refused_at_once(space: dict, sweep: dict, number: str) -> None:
    start = time.process_time()
    with pytest.raises(UserError, match=rf"search_space: {number} trials; a sweep has at most 10,000"):
        points_of(space, sweep=sweep)
    assert time.process_time() - start < 3


def test_ends_are_judged_by_their_own_key_alone() -> None:
    space = {"recluster.warmup_epochs": {"randint": [11, 14]}, "train.num_epochs": 20}
    points = points_of(space, sweep={"num_samples": 3})
    assert all(11 <= point.config.recluster.warmup_epochs < 14 for point in points)


def test_an_empty_space_is_refused_for_every_searcher() -> None:
    for searcher in ("grid", "random", "optuna"):
        with pytest.raises(UserError, match="nothing to sweep"):
            points_of([{"seed": 1}, {}], sweep={"searcher": searcher})


def test_unhashable_choices_are_drawn() -> None:
    points = points_of({"clusters.granularities": {"choice": [[8, 4], [6, 3]]}}, sweep={"num_samples": 4})
    assert {point.config.clusters.granularities for point in points} <= {(8, 4), (6, 3)}
