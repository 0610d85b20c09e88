"""A run that shall repeat itself meets no operation that cannot, and leaves torch as it found it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from clray.config import Config
from clray.data.load import load_dataset
from clray.errors import UserError
from clray.kmeans.refresh import LocalKMeans
from clray.kmeans.shards.kept import KeptShards
from clray.seeding import CUBLAS_WORKSPACE
from clray.training import trainer
from clray.training.arithmetic import arithmetic_of_run, products_of_step
from clray.training.workers.process import LocalSession

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def settings() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        cudnn.benchmark,
        cudnn.deterministic,
        torch.get_float32_matmul_precision(),
    )


@pytest.fixture
def warned_of_chance() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.usefixtures("warned_of_chance")
def test_who_only_wants_to_be_warned_is_only_warned_afterwards(tiny_config: Callable[..., Config]) -> None:
    with arithmetic_of_run(tiny_config(train={"deterministic": True}).train, CPU):
        assert settings()[:2] == (True, False)
    assert settings()[:2] == (True, True)


@pytest.mark.parametrize(("backend", "deterministic"), [("torch", True), ("torch", False), ("faiss", True)])
def test_shards_that_search_by_torch_follow_the_run(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch, backend: str, deterministic: bool
) -> None:
    told: list[bool] = []
    monkeypatch.setattr("clray.kmeans.shards.choice.forbid_chance", lambda: told.append(True))
    config = tiny_config(kmeans={"backend": backend}).kmeans
    vectors = torch.rand(20, 3).numpy()
    KeptShards(config, "exact", None, deterministic=deterministic).open("", vectors, [2])
    assert bool(told) is (deterministic and backend == "torch")


@pytest.mark.parametrize(
    ("deterministic", "device", "expected"),
    [(False, CPU, (False, False)), (False, GPU, (False, True)), (True, CPU, (True, False)), (True, GPU, (True, False))],
)
def test_torch_is_set_up_for_a_run_and_put_back(
    tiny_config: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    deterministic: bool,
    device: torch.device,
    expected: tuple[bool, bool],
) -> None:
    monkeypatch.delenv(CUBLAS_WORKSPACE, raising=False)
    before, train = settings(), tiny_config(train={"deterministic": deterministic}).train
    with arithmetic_of_run(train, device):
        assert settings()[0::2][:2] == expected
        assert torch.backends.cudnn.deterministic == deterministic
        assert (CUBLAS_WORKSPACE in os.environ) == deterministic
    assert settings() == before
    with pytest.raises(ZeroDivisionError), arithmetic_of_run(train, device):
        raise ZeroDivisionError
    assert settings() == before


def test_float32_is_rounded_in_steps_on_gpus_alone(tiny_config: Callable[..., Config]) -> None:
    before = torch.get_float32_matmul_precision()
    for precision in ("high", "highest"):
        train = tiny_config(train={"float32_matmul_precision": precision}).train
        with products_of_step(train, CPU):
            assert torch.get_float32_matmul_precision() == before
        with products_of_step(train, GPU):
            assert torch.get_float32_matmul_precision() == precision
        assert torch.get_float32_matmul_precision() == before


def test_an_operation_without_a_deterministic_form_is_named(tiny_config: Callable[..., Config]) -> None:
    """Found on the CPU too, where torch has a few."""
    train = tiny_config(train={"deterministic": True}).train
    refusal = r"train\.deterministic=true: \S*put_? has no deterministic form on a cpu device; choose another"
    with pytest.raises(UserError, match=refusal), arithmetic_of_run(train, CPU):
        torch.zeros(3).put_(torch.tensor([1, 1]), torch.ones(2))


@pytest.mark.parametrize(
    "sections",
    [
        {"objective": {"name": "pcl"}},
        {"objective": {"name": "cl-infonce", "negatives": "queue"}, "train": {"optimizer": "lars"}},
        {"objective": {"name": "cluster-prediction"}, "recluster": {"warmup_epochs": 0}},
    ],
    ids=lambda each: each["objective"]["name"],
)
def test_objectives_train_deterministically(
    tiny_config: Callable[..., Config], tmp_path: Path, sections: dict[str, dict]
) -> None:
    train = {"num_epochs": 2, "deterministic": True, **sections.pop("train", {})}
    config = tiny_config(train=train, **sections)
    data = load_dataset(config.data)
    losses = []
    for name in ("one", "other"):
        session = LocalSession(tmp_path / name, LocalKMeans(config.kmeans), lambda _: None, CPU)
        losses.append(trainer.run(config, data, session)["train/loss"])
    assert losses[0] == losses[1]
