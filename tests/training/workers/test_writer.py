"""Checkpoints are written beside training: what is written is the state as it was, and one at a time."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clray.config import Config
from clray.data.load import load_dataset
from clray.errors import UserError
from clray.training.checkpoint import read_checkpoint, write_checkpoint
from clray.training.trainer import run
from clray.training.workers import process
from clray.training.workers.process import LocalSession
from clray.training.workers.writer import HostTree, Writer

MakeConfig = Callable[..., Config]
CPU = torch.device("cpu")
PATIENCE_SECONDS = 60


def test_a_copy_keeps_the_state_as_it_was_and_what_a_state_dict_says_of_versions() -> None:
    model, flags = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), [1, {"a": torch.ones(2)}]
    state = {"model": model.state_dict(), "flags": flags, "pair": (torch.zeros(1), "x")}
    before = {name: value.clone() for name, value in model.state_dict().items()}
    copied = HostTree(state).result()
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers(), state["pair"][0], flags[1]["a"]):
            value.add_(1)
    flags.append(2)
    assert all(torch.equal(value, before[name]) for name, value in copied["model"].items())
    assert copied["model"]._metadata == model.state_dict()._metadata
    assert copied["pair"][0].item() == 0
    assert copied["flags"][1]["a"].tolist() == [1, 1]
    assert len(copied["flags"]) == 2


def test_one_thing_is_under_way_at_a_time_and_what_it_raised_is_raised_by_the_next() -> None:
    writer, goes, order = Writer(), threading.Event(), []

    def first() -> None:
        assert goes.wait(PATIENCE_SECONDS)
        order.append("first")
        raise UserError("no room")

    assert writer.is_idle
    writer.begin(first)
    assert not writer.is_idle
    goes.set()
    with pytest.raises(UserError, match="no room"):
        writer.begin(lambda: order.append("never"))
    writer.begin(lambda: order.append("second"))
    writer.wait()
    assert order == ["first", "second"]


class Gate:
    """Lets a checkpoint be written only once the step after it has begun."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, steps_per_epoch: int) -> None:
        self.moved, self.step, self.num_held, self.steps_per_epoch = threading.Condition(), 0, 0, steps_per_epoch
        monkeypatch.setattr(process, "write_checkpoint", self.write)

    def on_step(self, step: int, _: int) -> None:
        with self.moved:
            self.step = step
            self.moved.notify_all()

    def write(self, folder: Path, checkpoint: Any, **more: Any) -> Path:
        taken = checkpoint["epoch"] * self.steps_per_epoch + checkpoint["step_in_epoch"]
        with self.moved:
            assert self.moved.wait_for(lambda: self.step >= taken, PATIENCE_SECONDS), "training waits for it"
        self.num_held += 1
        return write_checkpoint(folder, checkpoint, **more)


def test_training_goes_on_while_a_checkpoint_is_written(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(clusters={"source": "labels"}, train={"num_epochs": 2, "checkpoint_every_steps": 2})
    data, gate = load_dataset(config.data), Gate(monkeypatch, 3)

    class Last(LocalSession):
        def report(self, metrics: Any, snapshot: Any) -> None:
            if metrics["epoch"] == 2:  # no step follows
                self.writer.wait()
                monkeypatch.setattr(process, "write_checkpoint", write_checkpoint)
            super().report(metrics, snapshot)

    run(config, data, Last(tmp_path / "held", None, lambda _: None, CPU, on_step=gate.on_step))
    assert gate.num_held >= 2
    run(config, data, LocalSession(tmp_path / "whole", None, lambda _: None, CPU))
    held, whole = (read_checkpoint(tmp_path / name)["model"] for name in ("held", "whole"))
    assert all(torch.equal(value, held[name]) for name, value in whole.items())


def test_a_run_that_had_more_workers_before_leaves_no_older_checkpoints_of_theirs(
    tiny_config: MakeConfig, tmp_path: Path
) -> None:
    config = tiny_config(clusters={"source": "labels"}, train={"num_epochs": 1})
    (tmp_path / "workers" / "checkpoint_1").mkdir(parents=True)
    run(config, load_dataset(config.data), LocalSession(tmp_path, None, lambda _: None, CPU))
    assert not (tmp_path / "workers").exists()


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_checkpoint_that_cannot_be_written_ends_the_run_and_keeps_the_one_before(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epoch: int
) -> None:
    """At the next checkpoint, or at the end where it was the last."""
    config = tiny_config(clusters={"source": "labels"}, train={"num_epochs": 3})

    def write(folder: Path, checkpoint: Any, **more: Any) -> Path:
        if checkpoint["epoch"] == epoch:
            raise UserError("the disk is full")
        return write_checkpoint(folder, checkpoint, **more)

    monkeypatch.setattr(process, "write_checkpoint", write)
    with pytest.raises(UserError, match="the disk is full"):
        run(config, load_dataset(config.data), LocalSession(tmp_path, None, lambda _: None, CPU))
    if epoch > 1:
        assert read_checkpoint(tmp_path)["epoch"] == epoch - 1
    else:
        assert not any(tmp_path.glob("*.pt"))


@pytest.mark.parametrize("sweep", [{}, {"scheduler": "asha"}])
def test_a_checkpoint_is_there_when_who_hears_of_the_epoch_may_read_it(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: dict
) -> None:
    """After the last epoch, and after each where a sweep may end the trial there and its best be used."""
    train, evaluate = {"num_epochs": 2}, {"every_epochs": 1 if sweep else None}
    config = tiny_config(clusters={"source": "labels"}, sweep=sweep, train=train, evaluate=evaluate)
    heard: list[int] = []

    def write(*arguments: Any, **more: Any) -> Path:
        time.sleep(0.1)
        return write_checkpoint(*arguments, **more)

    def on_report(metrics: Any) -> None:
        if sweep or metrics["epoch"] == config.train.num_epochs:
            heard.append(read_checkpoint(tmp_path)["epoch"])

    monkeypatch.setattr(process, "write_checkpoint", write)
    run(config, load_dataset(config.data), LocalSession(tmp_path, None, on_report, CPU))
    assert heard == ([1, 2] if sweep else [2])
