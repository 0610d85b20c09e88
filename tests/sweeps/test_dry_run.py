from collections.abc import Callable

import pytest

from clray.config import Config
from clray.data.load import load_dataset
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
