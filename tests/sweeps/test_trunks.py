from collections.abc import Callable
from pathlib import Path

import pytest

from clray.config import Config, override
from clray.sweeps.book import TrialBook
from clray.sweeps.search_space import plan_sweep
from clray.sweeps.trunks import describe_trunks, find_trunks, trunk_key
from clray.training.checkpoint_parts import CHECKPOINT_FILE

MakeConfig = Callable[..., Config]


@pytest.mark.parametrize(
    ("overrides", "is_shared"),
    [
        ({"clusters.num_clusters": 9}, True),
        ({"kmeans.num_iterations": 9}, True),
        ({"recluster.every_epochs": 2}, True),
        ({"recluster.mode": "async"}, True),
        ({"objective.temperature": 0.3}, False),
        ({"seed": 1}, False),
        ({"recluster.warmup_epochs": 2}, False),
        ({"recluster.bank_momentum": 0.1}, False),
        ({"train.num_epochs": 4}, False),
        ({"clusters.granularities": [8, 4]}, False),
        ({"encoder.width": 8}, False),
        ({"clusters.source": "instance"}, True),
        ({"objective.name": "infonce", "clusters.source": "instance"}, True),
        ({"clusters.source": "labels"}, False),
    ],
)
def test_runs_share_what_they_agree_in_before_the_first_clustering(
    overrides: dict, is_shared: bool, tiny_config: MakeConfig
) -> None:
    config = tiny_config()
    assert (trunk_key(override(config, overrides)) == trunk_key(config)) == is_shared


@pytest.mark.parametrize(
    "overrides",
    [
        {"recluster.warmup_epochs": 0},
        {"objective.name": "cluster-prediction", "recluster.warmup_epochs": 0},
        {"objective.name": "pcl"},
        {"objective.name": "supcon", "clusters.source": "labels"},
    ],
)
def test_a_run_without_such_epochs_shares_none(overrides: dict, tiny_config: MakeConfig) -> None:
    assert trunk_key(override(tiny_config(), overrides)) is None


def test_one_trial_of_a_trunk_is_dealt_until_it_has_trained_that(tiny_config: MakeConfig, tmp_path: Path) -> None:
    space = [
        {"clusters.num_clusters": {"grid_search": [3, 4, 5]}, "objective.temperature": {"grid_search": [0.1, 0.5]}},
        {"objective.name": "supcon"},
    ]
    config = tiny_config(search_space=space)
    plan = plan_sweep(config)
    book = TrialBook(config, plan, tmp_path)
    assert describe_trunks(plan.points, book.trunks) == ["2 times 3 trials share 1 of 3 epochs"]
    dealt = [book.next_open() for _ in range(4)]
    assert [record and record.point.name for record in dealt] == ["k=3 t=0.1", "k=3 t=0.5", "supcon", None]
    assert book.is_waiting
    trunk = book.trunks[dealt[0].point.index]
    trunk.folder.mkdir(parents=True)
    (trunk.folder / CHECKPOINT_FILE).touch()
    dealt[1].state = "failed"  # before it had trained its own: the next one does
    names = [record and record.point.name for record in (book.next_open() for _ in range(4))]
    assert names == ["k=4 t=0.1", "k=4 t=0.5", "k=5 t=0.1", None]


@pytest.mark.parametrize("sweep", [{"share_warmup": False}, {"scheduler": "pbt"}])
def test_nothing_is_shared_where_it_is_not_wanted(sweep: dict, tiny_config: MakeConfig, tmp_path: Path) -> None:
    space = [{"clusters.num_clusters": {"grid_search": [3, 4]}, "objective.temperature": 0.2}]
    config = tiny_config(
        search_space=space, evaluate={"every_epochs": 1}, sweep={"mutated": ["objective.temperature"], **sweep}
    )
    assert find_trunks(config, plan_sweep(config).points, tmp_path) == {}


def test_infonce_shares_the_trunk_of_its_temperature_but_is_none_by_itself(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    of_k, alone = {"clusters.num_clusters": {"grid_search": [3, 4]}}, {"clusters.source": {"grid_search": ["instance"]}}
    config = tiny_config(search_space=[of_k, alone])
    points = plan_sweep(config).points
    trunks = find_trunks(config, points, tmp_path)
    assert trunks.keys() == {0, 1, 2}
    assert [each.counts for each in trunks[2].wanted] == [(3,), (4,)]
    assert find_trunks(config, points[2:] * 2, tmp_path) == {}
