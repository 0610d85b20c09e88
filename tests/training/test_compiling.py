"""`train.compile`: when a step is compiled, that this changes nothing, and what is said where it cannot."""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from clray.config import Config, parse_config
from clray.data.load import load_dataset
from clray.errors import UserError
from clray.model.encoder import ContrastiveModel
from clray.training import compiling, trainer
from clray.training.checkpoint import read_checkpoint
from clray.training.compiling import LEAST_STEPS, OrEager, is_worth_compiling
from clray.training.machine_times import MachineTimes
from tests.training.test_trainer import train

CPU, GPU = torch.device("cpu"), torch.device("cuda")
MakeConfig = Callable[..., Config]
SHAPE = (64, 1, 8, 8)
HAS_COMPILER = any(map(shutil.which, ("g++", "clang++")))


def is_compiled(config: Config, *, num_steps: int = 10**6) -> bool:
    return is_worth_compiling(config, ContrastiveModel(config, 1, 6), SHAPE, num_steps=num_steps)


class OnGpu(ContrastiveModel):
    """Says that it is on a GPU."""

    def parameters(self, recurse: bool = True) -> object:  # noqa: ARG002
        return iter([type("Weight", (), {"device": GPU})])


@pytest.mark.parametrize(
    ("wanted", "num_steps", "compiled"),
    [("auto", LEAST_STEPS, True), ("auto", LEAST_STEPS - 1, False), (True, 1, True), (False, 10**6, False)],
)
def test_auto_compiles_long_runs_on_a_gpu(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, wanted: object, num_steps: int, compiled: bool
) -> None:
    monkeypatch.setattr(compiling, "missing_compiler", lambda _: None)
    config = tiny_config(train={"compile": wanted})
    assert is_worth_compiling(config, OnGpu(config, 1, 6), SHAPE, num_steps=num_steps) is compiled


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """What is timed on a CPU whose step takes a second as it is, 0.8 compiled, and 40 to compile."""
    told: list[str] = []

    def step(*_: object) -> float:
        told.append("step")
        return 1.0

    def compilation(*_: object) -> dict[str, float]:
        told.append("compilation")
        return {"eager": 1.0, "compiled": 0.8, "compiling": 40.0}

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(compiling, "missing_compiler", lambda _: None)
    monkeypatch.setattr(compiling, "embed_and_back", step)
    monkeypatch.setattr(compiling, "time_compilation", compilation)
    return told


def test_auto_compiles_on_a_cpu_where_it_pays_within_the_run_and_finds_out_once(
    tiny_config: MakeConfig, taken: list[str]
) -> None:
    config = tiny_config(train={"compile": "auto"})
    assert not is_compiled(config, num_steps=200)  # so short a run does not pay for finding out
    assert taken == ["step"]
    assert is_compiled(config, num_steps=300)
    assert taken == ["step", "step", "compilation"]
    assert not is_compiled(config, num_steps=199)
    assert is_compiled(config, num_steps=201)
    assert taken == ["step", "step", "compilation"]
    assert not is_compiled(tiny_config(train={"compile": "auto", "deterministic": True}))


def test_a_compilation_that_gains_nothing_is_left(tiny_config: MakeConfig, taken: list[str]) -> None:
    config = tiny_config(train={"compile": "auto"})
    model = ContrastiveModel(config, 1, 6)
    times = MachineTimes(compiling.FOLDER, compiling.TIMES, config, model, SHAPE, precision=model.precision)
    times.take(lambda: {"eager": 1.0, "compiled": 1.01, "compiling": 40.0})
    assert not is_compiled(config)
    assert taken == []


def test_without_a_compiler_the_run_goes_on_and_says_so(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with caplog.at_level(logging.WARNING):
        assert not is_compiled(tiny_config(train={"compile": True}))
        assert not is_compiled(tiny_config(train={"compile": "auto"}))
    assert caplog.messages == ["train.compile=True: a C++ compiler is missing, so nothing is compiled"]


def test_what_cannot_be_compiled_runs_as_it_is_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise torch._dynamo.exc.TorchDynamoException("no such operation")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: fails)
    double = OrEager("the loss", lambda value: 2 * value)
    assert [double(2), double(3)] == [4, 6]
    assert caplog.messages == [
        "train.compile: the loss cannot be compiled, and runs as it is (TorchDynamoException: no such operation)"
    ]


def test_a_gpu_without_triton_misses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda _: None)
    assert compiling.missing_compiler(GPU) == "the package triton"


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"train\.compile must be auto, true or false"):
        parse_config({"train": {"compile": value}})


OBJECTIVES = {
    "cl-infonce": {},
    "two heads": {"dual_head": True},
    "queue": {"negatives": "queue", "queue_size": 64},
    "pairs": {"form": "pair-sampled"},
    "ccl-k": {"name": "ccl-k", "kernel": "rbf"},
    "swav": {"name": "swav"},
    "supervised": {"name": "supervised"},
}


def trained(config: Config, folder: Path) -> dict[str, torch.Tensor]:
    train(config, load_dataset(config.data), folder)
    return read_checkpoint(folder)["model"]


def weights_of(make: MakeConfig, tmp_path: Path, objective: dict) -> list[dict[str, torch.Tensor]]:
    """Of a step as it is, and compiled."""
    found, clusters = [], {"source": "labels"}
    if objective.get("name") == "ccl-k":
        clusters = {"path": str(tmp_path / "vectors.npy")}
        num_images = len(load_dataset(make().data).train)
        np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(num_images, 3)))
    for compiled in (False, True):
        config = make(
            objective=objective,
            clusters=clusters,
            train={
                "compile": compiled,
                "num_epochs": 1,
                "global_batch_size": 96,
                "optimizer": "sgd",
                "learning_rate": 1.0,
            },
        )
        found.append(trained(config, tmp_path / str(compiled)))
    return found


def assert_close(found: list[dict[str, torch.Tensor]]) -> None:
    eager, compiled = found
    assert list(eager) == list(compiled)
    for name, value in eager.items():
        torch.testing.assert_close(compiled[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_traced_step_of_every_objective_is_that_of_the_eager_one(
    tiny_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    name: str,
) -> None:
    """As it is traced and differentiated, without the code that a compiler makes of it, which takes long."""
    compile_by = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **_: compile_by(function, backend="aot_eager"))
    monkeypatch.setattr(compiling, "missing_compiler", lambda _: None)
    assert_close(weights_of(tiny_config, tmp_path, OBJECTIVES[name]))
    assert not [each for each in caplog.messages if "train.compile" in each]


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not HAS_COMPILER, reason="torch.compile needs a C++ compiler on a CPU, and there is none")
def test_a_compiled_step_is_that_of_the_eager_one(
    tiny_config: MakeConfig, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    assert_close(weights_of(tiny_config, tmp_path, {}))
    assert not [each for each in caplog.messages if "train.compile" in each]


def test_a_run_compiles_as_in_a_fresh_process(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The trials of a sweep follow each other in one process: after eight that differ torch compiled no more."""
    compiled_shapes: list[list[object]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable:
        compiled_shapes.append([tuple(each.shape) for each in inputs])
        return graph.forward

    def double(values: torch.Tensor) -> torch.Tensor:
        return 2 * values

    compiled = torch.compile(double, backend=backend)
    monkeypatch.setattr(trainer, "is_worth_compiling", lambda *_, **__: False)
    for size in (3, 4):
        trained(
            tiny_config(clusters={"source": "labels"}, train={"compile": True, "num_epochs": 1}), tmp_path / f"{size}"
        )
        compiled(torch.ones(size))
    assert compiled_shapes == [[(3,)], [(4,)]], "each for its own shape, which torch takes for variable at the second"
