"""`train.compile`: when the encoder is compiled, what that changes, and what is said where it cannot."""

import logging
from collections.abc import Callable

import pytest
import torch

from clray.config import Config, parse_config
from clray.errors import UserError
from clray.model.encoder import ContrastiveModel
from clray.training import compiling
from clray.training.compiling import LEAST_STEPS, compile_encoder

CPU, GPU = torch.device("cpu"), torch.device("cuda")
MakeConfig = Callable[..., Config]


def is_compiled(config: Config, *, num_steps: int = 10**6, device: torch.device = CPU) -> bool:
    model = ContrastiveModel(config, 1, 6)
    compile_encoder(model, config.train, num_steps=num_steps, device=device)
    return model.encoder._compiled_call_impl is not None


@pytest.mark.parametrize(
    ("wanted", "device", "num_steps", "compiled"),
    [
        ("auto", CPU, 10**6, False),
        ("auto", GPU, LEAST_STEPS, True),
        ("auto", GPU, LEAST_STEPS - 1, False),
        (True, CPU, 1, True),
        (True, GPU, 1, True),
        (False, GPU, 10**6, False),
    ],
)
def test_auto_compiles_long_runs_on_a_gpu(
    tiny_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    wanted: object,
    device: torch.device,
    num_steps: int,
    compiled: bool,
) -> None:
    monkeypatch.setattr(compiling, "missing_compiler", lambda _: None)
    config = tiny_config(train={"compile": wanted})
    assert is_compiled(config, num_steps=num_steps, device=device) is compiled


def test_without_a_compiler_the_run_goes_on_and_says_so(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: object, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with caplog.at_level(logging.WARNING):
        assert not is_compiled(tiny_config(train={"compile": True}))
    assert caplog.messages == ["train.compile=True: a C++ compiler is missing, so the encoder is not compiled"]


def test_a_gpu_without_triton_misses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda _: None)
    assert compiling.missing_compiler(GPU) == "the package triton"


@pytest.mark.parametrize("value", ["yes", 1, None])
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(UserError, match=r"train\.compile must be auto, true or false"):
        parse_config({"train": {"compile": value}})


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_encoder_gives_the_same_and_keeps_its_names(tiny_config: MakeConfig) -> None:
    config = tiny_config(train={"compile": True})
    model, images = ContrastiveModel(config, 1, 6).eval(), torch.rand(4, 1, 8, 8)
    with torch.no_grad():
        z, names = model(images).z, list(model.state_dict())
        compile_encoder(model, config.train, num_steps=1, device=CPU)
        torch.testing.assert_close(model(images).z, z, atol=1e-5, rtol=0)
    assert list(model.state_dict()) == names
