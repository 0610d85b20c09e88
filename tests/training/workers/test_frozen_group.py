"""Two gloo workers whose encoder is frozen at first: it then learns, and alike on both."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from clray.config import parse_config
from clray.data.load import load_dataset
from clray.training import trainer
from clray.training.checkpoint_form import Snapshot
from clray.training.encoder_start import fresh_model
from clray.training.metrics import Metrics
from tests.conftest import TINY
from tests.training.workers.test_resumed_group import GlooSession


class Watching(GlooSession):
    """Keeps each worker's weights of every epoch."""

    model: nn.Module

    def report(self, metrics: Metrics, snapshot: Snapshot | None) -> None:
        torch.save(self.model.state_dict(), f"{self.folder}.{self.rank}.{int(metrics['epoch'])}")
        super().report(metrics, snapshot)


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}.meeting", rank=rank, world_size=2)
    tree = {
        **TINY,
        "clusters": {"source": "labels"},
        "encoder": {**TINY["encoder"], "frozen_epochs": 1},
        "train": {**TINY["train"], "num_epochs": 3, "num_workers": 2},
    }
    config = parse_config(tree)
    session = Watching(Path(folder), rank, None)
    create = trainer.create_state

    def watched(*arguments: Any, **more: Any) -> Any:
        state = create(*arguments, **more)
        session.model = state.model
        return state

    trainer.create_state = watched  # in a process of its own
    trainer.run(config, load_dataset(config.data), session)
    dist.destroy_process_group()


@pytest.mark.slow
def test_an_encoder_that_was_frozen_learns_alike_on_both_workers(tmp_path: Path) -> None:
    mp.spawn(worker, (str(tmp_path / "run"),), nprocs=2)
    first, second = ([torch.load(tmp_path / f"run.{rank}.{epoch}") for epoch in (1, 2, 3)] for rank in (0, 1))
    for name in first[0]:
        moves = not torch.equal(first[0][name], first[2][name])
        assert moves, name
        for one, other in zip(first, second, strict=True):
            assert torch.equal(one[name], other[name]), name
    fresh = fresh_model(parse_config(TINY), 1, 6).encoder.state_dict()
    for name, value in fresh.items():
        assert torch.equal(first[0][f"encoder.{name}"], value), name
