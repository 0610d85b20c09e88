"""A run in the calling process, as each trial of a sweep is one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clray.config import Config
from clray.data.load import load_dataset
from clray.training.checkpoint import read_checkpoint
from clray.training.folder import CONFIG_FILE, write_config
from clray.training.workers.launch import train_in_process

FRESH = """
import sys
from pathlib import Path
from clray.config import load_config
from clray.data.load import load_dataset
from clray.training.workers.launch import train_in_process

config = load_config(Path(sys.argv[1]))
train_in_process(config, load_dataset(config.data), Path(sys.argv[2]), lambda _: None)
"""


@pytest.mark.slow
def test_weights_are_those_of_a_fresh_process_where_other_runs_went_before(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    """The trials of a sweep follow each other in one process, whose start takes longer than many a trial."""

    def config_of(train: dict[str, object], **sections: dict) -> Config:
        return tiny_config(clusters={"source": "labels"}, train={"num_epochs": 2, **train}, **sections)

    config = config_of({"optimizer": "adamw"})
    others = [config_of({"deterministic": True}), config_of({"precision": "bfloat16"}, encoder={"width": 8}), config]
    for number, each in enumerate(others):
        train_in_process(each, load_dataset(each.data), tmp_path / str(number), lambda _: None)
    write_config(config, tmp_path)
    command = [sys.executable, "-c", FRESH, str(tmp_path / CONFIG_FILE), str(tmp_path / "fresh")]
    subprocess.run(command, check=True, timeout=240)
    found, expected = (read_checkpoint(tmp_path / name)["model"] for name in ("2", "fresh"))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
