from collections.abc import Callable

import pytest

from clray.config import Config
from clray.data.load import load_dataset
from clray.data.samples import Dataset
from clray.sweeps import dry_run
from clray.sweeps.dry_run import estimate
from clray.sweeps.search_space import plan_sweep


def test_the_time_is_that_of_all_steps_shared_by_the_trials_at_once(tiny_config: Callable[..., Config]) -> None:
    space = [{"clusters.num_clusters": {"grid_search": [3, 4, 5]}}]
    config = tiny_config(search_space=space, sweep={"seeds": 2}, clusters={"source": "kmeans"})
    found = estimate(config, plan_sweep(config), load_dataset(config.data), num_at_once=2)
    assert found.num_trials == 6
    assert found.shared == ("2 times 3 trials share 1 of 3 epochs",), "one for each seed"
    assert found.num_steps == (6 * 3 - 2 * 2) * 3, "96 images in batches of 32, three epochs"
    assert 0 < found.step_seconds < 10
    assert found.seconds == pytest.approx(found.num_steps * found.step_seconds / 2)


def test_trials_with_other_views_are_timed_by_themselves(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    space = {
        "augmentation.num_small_views": {"grid_search": [0, 4]},
        "augmentation.jitter_strength": {"grid_search": [0.1, 0.2]},
    }
    config, timed = tiny_config(search_space=[space]), list[int]()

    def time_steps(own: Config, _data: Dataset) -> float:
        timed.append(own.augmentation.small_views)
        return 1.0 + own.augmentation.small_views

    monkeypatch.setattr(dry_run, "time_steps", time_steps)
    found = estimate(config, plan_sweep(config), load_dataset(config.data), num_at_once=1)
    assert sorted(timed) == [0, 4]
    assert found.step_seconds == pytest.approx(3.0)
