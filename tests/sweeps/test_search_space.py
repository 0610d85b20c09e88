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
        ({"objective.temperature": {"grid_search": [0.1, 0.0]}}, r"trial t=0.*objective\.temperature .*got 0\.0"),
        ({"clusters.num_clusters": {"grid_search": []}}, "expected a list"),
        ({}, "nothing to sweep"),
    ],
)
def test_a_bad_space_is_refused_by_name(space: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        points_of([space] if space else [])
