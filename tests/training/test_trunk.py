from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from clray.config import Config
from clray.data.load import load_dataset
from clray.kmeans.refresh import LocalKMeans
from clray.training.checkpoint import BEST_FILE, CHECKPOINT_FILE, read_checkpoint
from clray.training.metrics import Metrics, read_metrics
from clray.training.trunk import Trunk
from clray.training.workers.launch import train_in_process

MakeConfig = Callable[..., Config]
TIMES = ("seconds", "per_second")


def train(config: Config, folder: Path, trunk: Trunk | None) -> list[Metrics]:
    folder.mkdir(exist_ok=True)
    train_in_process(config, load_dataset(config.data), folder, lambda _: None, LocalKMeans(config.kmeans), trunk=trunk)
    return [
        {name: value for name, value in metrics.items() if not name.endswith(TIMES)} for metrics in read_metrics(folder)
    ]


@pytest.mark.parametrize("objective", [{}, {"dual_head": True}, {"negatives": "queue", "queue_size": 64}])
def test_a_run_that_starts_from_a_trunk_is_to_the_bit_what_it_would_be_alone(
    objective: dict, tiny_config: MakeConfig, tmp_path: Path
) -> None:
    def config(num_clusters: int) -> Config:
        return tiny_config(
            clusters={"num_clusters": num_clusters},
            objective=objective,
            evaluate={"every_epochs": 1, "probe_epochs": 1},
            recluster={"warmup_epochs": 2},
        )

    trunk = Trunk(tmp_path / "trunks" / "key", 2)
    train(config(9), tmp_path / "first", trunk)
    (tmp_path / "second").mkdir()
    assert trunk.start(tmp_path / "second")
    shared, alone = train(config(4), tmp_path / "second", trunk), train(config(4), tmp_path / "alone", None)
    assert shared == alone
    assert (tmp_path / "second" / BEST_FILE).exists() == (tmp_path / "alone" / BEST_FILE).exists()
    found, expected = read_checkpoint(tmp_path / "second"), read_checkpoint(tmp_path / "alone")
    assert found["epoch"] == 3
    torch.testing.assert_close(found["model"], expected["model"], rtol=0, atol=0)
    torch.testing.assert_close(found["bank"], expected["bank"], rtol=0, atol=0)


def test_a_damaged_trunk_is_removed_and_its_epochs_are_trained_again(
    tiny_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trunk, config = Trunk(tmp_path / "trunks" / "key", 1), tiny_config(train={"num_epochs": 2})
    train(config, tmp_path / "first", trunk)
    assert trunk.is_ready
    content = (trunk.folder / CHECKPOINT_FILE).read_bytes()
    (trunk.folder / CHECKPOINT_FILE).unlink()  # which is a second name of a file
    (trunk.folder / CHECKPOINT_FILE).write_bytes(content[: len(content) // 2])
    (tmp_path / "second").mkdir()
    assert not trunk.start(tmp_path / "second")
    assert "its epochs are trained again" in caplog.text
    assert not trunk.is_ready
    assert list((tmp_path / "second").iterdir()) == []


def test_a_run_with_files_of_its_own_keeps_them(tiny_config: MakeConfig, tmp_path: Path) -> None:
    trunk, config = Trunk(tmp_path / "trunks" / "key", 1), tiny_config(train={"num_epochs": 2})
    train(config, tmp_path / "run", trunk)
    before = (tmp_path / "run" / CHECKPOINT_FILE).read_bytes()
    assert not trunk.start(tmp_path / "run")
    assert (tmp_path / "run" / CHECKPOINT_FILE).read_bytes() == before
