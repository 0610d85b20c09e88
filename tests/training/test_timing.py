"""Steps are timed by one worker, whatever group the run is to have."""

from collections.abc import Callable

import pytest

from clray.config import Config
from clray.data.load import load_dataset
from clray.training.timing import time_steps


@pytest.mark.parametrize("workers", [2, [1, 3]])
def test_a_step_of_a_group_is_timed_alone(workers: object, tiny_config: Callable[..., Config]) -> None:
    config = tiny_config(train={"num_workers": workers, "num_epochs": 4}, clusters={"source": "labels"})
    assert time_steps(config, load_dataset(config.data)) > 0
