from collections.abc import Callable

import numpy as np
import pytest

from clray.config import Config
from clray.data.images.array import ArrayImages
from clray.data.samples import Dataset, Samples
from clray.sweeps.check import check_points
from clray.sweeps.coincidence import without_coincident
from clray.sweeps.search_space import SweepPlan, plan_sweep

REFERENCES = {"objective.name": {"grid_search": ["infonce", "supcon"]}}


def planned(config: Config, labels: np.ndarray) -> tuple[SweepPlan, list[str]]:
    pixels = np.zeros((len(labels), 1, 8, 8), np.uint8)
    train = Samples(ArrayImages(pixels), labels, {})
    names = {None: tuple(map(str, np.unique(labels)))}
    data = Dataset(train, train, num_classes=len(names[None]), num_channels=1, names=names)
    plan = plan_sweep(config)
    return without_coincident(plan, check_points(plan.points, data)[0])


def test_synthetic_points_that_are_supcon_are_left_out_with_a_word(tiny_config: Callable[..., Config]) -> None:
    synthetic = {
        "clusters.source": "synthetic",
        "clusters.num_merged": {"grid_search": [2, 4]},
        "clusters.num_splits": {"grid_search": [1, 3]},
        "objective.temperature": {"grid_search": [0.1, 0.5]},
    }
    config = tiny_config(search_space=[synthetic, {**REFERENCES, "objective.temperature": 0.1}])
    plan, notes = planned(config, np.arange(32) % 4)
    assert notes == ["trial synthetic merged=4 splits=1 t=0.1 has the clusters of supcon t=0.1, and is left out"]
    assert plan.num_trials == len(plan.points) == 9  # at temperature 0.5 there is no SupCon that it would be
    assert [point.index for point in plan.points] == [0, 1, 2, 3, 5, 6, 7, 8, 9]  # folders keep their numbers


@pytest.mark.parametrize("permuted", [0.0, 1.0])
def test_synthetic_points_of_single_images_are_infonce(tiny_config: Callable[..., Config], permuted: float) -> None:
    """Every image has a class of its own, which is InfoNCE and SupCon at once."""
    synthetic = {"clusters.source": "synthetic", "clusters.permuted_fraction": permuted}
    plan, notes = planned(tiny_config(search_space=[synthetic, REFERENCES]), np.arange(32))
    assert len(notes) == 1
    assert [point.config.objective.name for point in plan.points] == ["infonce", "supcon"]


def test_without_a_reference_point_none_is_left_out(tiny_config: Callable[..., Config]) -> None:
    synthetic = {"clusters.source": "synthetic", "clusters.num_splits": {"grid_search": [1, 2]}}
    plan, notes = planned(tiny_config(search_space=[synthetic]), np.arange(32) % 4)
    assert notes == []
    assert plan.num_trials == 2
