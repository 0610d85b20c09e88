"""float16, for GPUs without bfloat16: gradients are scaled, an overflow costs one step, and a run resumes alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clray.config import Config
from clray.data.load import load_dataset
from clray.model import encoder
from clray.model.encoder import PRODUCT_TYPES, product_type
from clray.training import precision, trainer
from clray.training.checkpoint import read_checkpoint
from clray.training.checkpoint_form import Checkpoint
from clray.training.metrics import Metrics
from clray.training.precision import precision_of
from clray.training.workers.process import LocalSession

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("device", "has_bfloat16", "expected"),
    [
        ("cuda", True, torch.bfloat16),
        ("cuda", False, torch.float16),
        ("cpu", True, torch.bfloat16),
        ("cpu", False, torch.float32),
    ],
)
def test_a_gpu_without_bfloat16_takes_float16(
    monkeypatch: pytest.MonkeyPatch, device: str, has_bfloat16: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(encoder, "_has_bfloat16", lambda _: has_bfloat16)
    assert product_type("auto", torch.device(device)) == expected
    for name in ("bfloat16", "float16", "float32"):
        assert product_type(name, torch.device(device)) == getattr(torch, name)


def run(config: Config, folder: Path, steps: Callable[[trainer._Run], None] = lambda _: None) -> Metrics:
    data = load_dataset(config.data)
    session = LocalSession(folder, None, lambda _: None, CPU)
    this = trainer._Run(config, data, session, trainer.Start(trainer.start_clusters(config, data)))
    steps(this)
    return this.train_until(config.train.num_epochs)


def test_a_run_in_float16_learns_as_one_in_float32(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    losses, sections = {}, {"clusters": {"source": "labels"}}
    for name in ("float16", "float32"):
        config = tiny_config(train={"precision": name, "num_epochs": 2}, **sections)
        metrics = run(config, tmp_path / name)
        assert precision_of(metrics) == name
        losses[name] = metrics["train/loss"]
    assert losses["float16"] == pytest.approx(losses["float32"], rel=0.02)
    kept = read_checkpoint(tmp_path / "float16")
    assert kept["scaler"]["scale"] >= 1
    assert "scaler" not in read_checkpoint(tmp_path / "float32")


def test_an_overflow_leaves_the_weights_and_lowers_the_scale(
    tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    config = tiny_config(
        train={"precision": "float16", "num_epochs": 1, "global_batch_size": 96}, clusters={"source": "labels"}
    )
    seen: dict[str, Any] = {}

    def overflow(this: trainer._Run) -> None:
        this.state.scaler.load_state_dict({**this.state.scaler.state_dict(), "scale": 1e30})
        seen["model"] = this.state.model
        seen["before"] = [each.detach().clone() for each in this.state.model.parameters()]

    run(config, tmp_path / "run", overflow)
    assert all(map(torch.equal, seen["before"], seen["model"].parameters()))
    assert read_checkpoint(tmp_path / "run")["scaler"]["scale"] == pytest.approx(5e29)


def test_a_resumed_run_keeps_its_scale(tiny_config: Callable[..., Config], tmp_path: Path) -> None:
    def config(num_epochs: int) -> Config:
        return tiny_config(train={"precision": "float16", "num_epochs": num_epochs}, clusters={"source": "labels"})

    run(config(1), tmp_path / "run")
    checkpoint: Checkpoint = read_checkpoint(tmp_path / "run")
    found: list[float] = []
    run(config(2), tmp_path / "run", lambda this: found.append(this.state.scaler.get_scale()))
    assert found == [checkpoint["scaler"]["scale"]]
    assert checkpoint["scaler"]["_growth_tracker"] == 3


def auto(tiny_config: Callable[..., Config], num_epochs: int, settled: str, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A run whose device settles its precision so."""
    monkeypatch.setattr(trainer, "settled_precision", lambda *_: settled)
    monkeypatch.setattr(precision, "product_type", lambda *_: PRODUCT_TYPES[settled])
    return tiny_config(train={"precision": "auto", "num_epochs": num_epochs}, clusters={"source": "labels"})


@pytest.mark.parametrize(("began", "here"), [("float16", "bfloat16"), ("bfloat16", "float16"), ("float16", "float32")])
def test_a_run_of_another_device_keeps_its_precision_and_scale_and_says_so(
    tiny_config: Callable[..., Config],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    began: str,
    here: str,
) -> None:
    run(auto(tiny_config, 1, began, monkeypatch), tmp_path / "run")
    kept = read_checkpoint(tmp_path / "run")
    assert not caplog.messages
    scalers: list[torch.amp.GradScaler] = []
    resumed = auto(tiny_config, 2, here, monkeypatch)
    metrics = run(resumed, tmp_path / "run", lambda this: scalers.append(this.state.scaler))
    assert precision_of(metrics) == began
    assert [each.is_enabled() for each in scalers] == [began == "float16"]
    assert (began == "float16") is ("scaler" in kept)
    if began == "float16":
        assert read_checkpoint(tmp_path / "run")["scaler"]["_growth_tracker"] == 6
    assert caplog.messages == [
        f"train.precision=auto: the run began in {began} and goes on in it, where a new run on this cpu device would "
        f"take {here}"
    ]
