"""`train.precision: auto` takes what is faster here, times it once, and a run keeps what it started with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from clray.config import Config
from clray.data.load import load_dataset
from clray.model.encoder import ContrastiveModel
from clray.training import precision, trainer
from clray.training.checkpoint import read_checkpoint
from clray.training.metrics import read_metrics
from clray.training.precision import FOLDER, settled_precision, time_precisions
from clray.training.workers.process import LocalSession

CPU = torch.device("cpu")
SHAPE = (1, 8, 8)
MakeConfig = Callable[..., Config]


class Stopwatch:
    """Stands for the timing; hears how often it was asked."""

    def __init__(self) -> None:
        self.seconds, self.count = {"float32": 1.0, "bfloat16": 1.0}, 0

    def __call__(self, _model: ContrastiveModel, _shape: tuple[int, ...]) -> dict[str, float]:
        self.count += 1
        return dict(self.seconds)


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stopwatch]:
    """On a CPU that has bfloat16, with an empty cache."""
    watch = Stopwatch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(precision, "uses_bfloat16", lambda *_: True)
    monkeypatch.setattr(precision, "time_precisions", watch)
    return watch


def settle(config: Config, batch_size: int = 32) -> str:
    return settled_precision(config, ContrastiveModel(config, 1, 6), SHAPE, batch_size, CPU)


def auto(tiny_config: MakeConfig, **sections: dict) -> Config:
    return tiny_config(**{"clusters": {"source": "instance"}, **sections, "train": {"precision": "auto"}})


@pytest.mark.parametrize(("bfloat16", "taken"), [(0.72, "bfloat16"), (1.4, "float32"), (0.99, "float32")])
def test_auto_takes_bfloat16_where_it_is_clearly_faster(
    tiny_config: MakeConfig, stopwatch: Stopwatch, bfloat16: float, taken: str
) -> None:
    stopwatch.seconds = {"float32": 1.0, "bfloat16": bfloat16}
    assert settle(auto(tiny_config)) == taken


def test_times_are_taken_once_for_each_encoder_and_batch(tiny_config: MakeConfig, stopwatch: Stopwatch) -> None:
    config = auto(tiny_config)
    settle(config)
    settle(auto(tiny_config, objective={"temperature": 0.3}))
    assert stopwatch.count == 1
    settle(config, batch_size=64)
    settle(auto(tiny_config, encoder={"width": 8}))
    assert stopwatch.count == 3


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"seconds": {"float32": 0.0, "bfloat16": 1.0}}'])
def test_a_damaged_file_is_as_none(tiny_config: MakeConfig, stopwatch: Stopwatch, tmp_path: Path, text: str) -> None:
    stopwatch.seconds["bfloat16"] = 0.5
    settle(auto(tiny_config))
    (kept,) = (tmp_path / "cache" / "clray" / FOLDER).glob("*.json")
    kept.write_text(text, encoding="utf-8")
    assert settle(auto(tiny_config)) == "bfloat16"
    assert stopwatch.count == 2


def test_a_cache_that_cannot_be_written_ends_no_run(
    tiny_config: MakeConfig, stopwatch: Stopwatch, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("a file", encoding="utf-8")
    assert settle(auto(tiny_config)) == "float32"
    assert stopwatch.count == 1


def test_what_the_hardware_or_the_config_decides_is_not_timed(
    tiny_config: MakeConfig, stopwatch: Stopwatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settle(tiny_config(train={"precision": "bfloat16"})) == "bfloat16"
    monkeypatch.setattr(precision, "uses_bfloat16", lambda *_: False)
    assert settle(auto(tiny_config)) == "float32"
    assert stopwatch.count == 0


def test_timing_leaves_the_model_and_the_generators_as_they_are(tiny_config: MakeConfig) -> None:
    torch.manual_seed(3)
    model = ContrastiveModel(tiny_config(), 1, 6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    seconds = time_precisions(model, (32, *SHAPE))
    assert torch.equal(torch.get_rng_state(), state)
    assert model.precision == "float32"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert min(seconds.values()) > 0


class Stopped(Exception):
    pass


def train(config: Config, folder: Path, stop_after: int | None = None) -> list[float]:
    """What each epoch tells of its precision."""

    def on_report(metrics: dict[str, float]) -> None:
        if metrics["epoch"] == stop_after:
            raise Stopped

    try:
        trainer.run(config, load_dataset(config.data), LocalSession(folder, None, on_report, CPU))
    except Stopped:
        assert stop_after is not None
    return [metrics["train/bfloat16"] for metrics in read_metrics(folder)]


def test_a_resumed_run_keeps_the_precision_it_started_with(
    tiny_config: MakeConfig, stopwatch: Stopwatch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopwatch.seconds["bfloat16"] = 0.5
    config, folder = auto(tiny_config), tmp_path / "run"
    assert train(config, folder, stop_after=1) == [1.0]
    assert read_checkpoint(folder)["config"]["train"]["precision"] == "bfloat16"
    stopwatch.seconds["bfloat16"] = 2.0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine's"))
    assert train(config, folder) == [1.0, 1.0, 1.0]
    assert stopwatch.count == 1
    assert train(config, tmp_path / "fresh", stop_after=1) == [0.0]


def test_a_run_of_the_users_own_code_resumes_in_its_precision(
    tiny_config: MakeConfig, stopwatch: Stopwatch, tmp_path: Path
) -> None:
    stopwatch.seconds["bfloat16"] = 0.5
    objective, train_section = {"name": "tests.training.own_objectives:Again"}, {"precision": "auto", "num_epochs": 2}
    config = tiny_config(
        allow_user_modules=True, objective=objective, train=train_section, clusters={"source": "labels"}
    )
    assert train(config, tmp_path, stop_after=1) == [1.0]
    assert train(config, tmp_path) == [1.0, 1.0]


def test_all_workers_and_models_take_the_choice_of_the_first(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(trainer, "from_first", lambda _compute, _world_size: "bfloat16")
    config = auto(tiny_config, objective={"negatives": "queue", "queue_size": 64})
    this = trainer._Run(
        config,
        load_dataset(config.data),
        LocalSession(tmp_path, None, lambda _: None, CPU),
        trainer.Start(trainer.start_clusters(config, load_dataset(config.data))),
    )
    models = {this.state.model, this.state.objective.embedding_model(this.state.model)}
    assert [model.precision for model in models] == ["bfloat16", "bfloat16"]


def test_the_views_are_timed_and_not_the_images(
    tiny_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[tuple[int, ...]] = []

    def settled(_config: Config, _model: ContrastiveModel, shape: tuple[int, ...], *_: object) -> str:
        shapes.append(shape)
        return "float32"

    monkeypatch.setattr(trainer, "settled_precision", settled)
    train(auto(tiny_config, augmentation={"view_size": 4}), tmp_path / "run", stop_after=1)
    assert shapes == [(1, 4, 4)]
