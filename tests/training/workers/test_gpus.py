"""A run trains on the GPU it asks for, or not at all; one that asks for none sees none."""

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from unittest.mock import MagicMock

import pytest
import torch

import clray
from clray import runs
from clray.config import Config
from clray.data.parts import load_parts
from clray.errors import UserError
from clray.sweeps import trainable
from clray.training.checkpoint import read_checkpoint
from clray.training.workers.gpus import default_device, device_beside, device_of, own_share, with_gpus
from clray.training.workers.group import backend_of

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)


@pytest.mark.parametrize(("num_workers", "num_gpus", "expected"), [(1, 0, 0), (1, 2, 1), (2, 2, 1), (4, 2, 0)])
def test_auto_is_one_gpu_where_each_worker_finds_one(
    tiny_config: Callable[..., Config], num_workers: int, num_gpus: float, expected: float
) -> None:
    config = tiny_config(train={"num_workers": num_workers})
    assert config.train.gpus_per_worker == "auto"
    assert with_gpus(config, num_gpus).train.gpus_per_worker == expected
    asked = tiny_config(train={"num_workers": num_workers, "gpus_per_worker": 0})
    assert with_gpus(asked, num_gpus).train.gpus_per_worker == 0


@pytest.mark.slow
def test_what_a_run_and_a_trial_were_asked_for_is_kept(
    tiny_config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of `auto` that found no GPU resumes, and embeds, on one that is there by then."""
    config = tiny_config(clusters={"source": "labels"}, train={"num_epochs": 1}, output=str(tmp_path))
    monkeypatch.setattr(runs, "recorded", lambda *_, **__: nullcontext(MagicMock()))
    place = clray.train(config, name="run", debug=True).folder
    data, told = load_parts(config.data), list[dict]()
    monkeypatch.setattr(trainable.ray, "get", lambda each: each)
    monkeypatch.setattr(trainable.tune, "report", told.append)
    trial = {"config": config, "folder": tmp_path, "data": [data], "clusters": [{}], "service": None, "trunks": {}}
    trainable.train_trial({"point": 1}, **trial)
    for folder in (place, tmp_path / "trials" / "0001"):
        assert read_checkpoint(folder)["config"]["train"]["gpus_per_worker"] == "auto"
    assert told[-1]["epoch"] == 1


def test_a_gpu_that_torch_does_not_see_is_refused(tiny_config: Callable[..., Config]) -> None:
    assert device_of(tiny_config().train) == CPU
    with pytest.raises(UserError, match=r"train\.gpus_per_worker=0\.5 asks for a GPU, and PyTorch .*or auto"):
        device_of(tiny_config(train={"gpus_per_worker": 0.5}).train)


@pytest.mark.usefixtures("one_gpu")
def test_a_run_that_asks_for_no_gpu_uses_none(tiny_config: Callable[..., Config]) -> None:
    none, auto = tiny_config(train={"gpus_per_worker": 0}).train, tiny_config().train
    assert device_of(none) == device_beside(none) == CPU
    assert device_of(auto) == device_beside(auto) == default_device() == GPU
    assert device_of(tiny_config(train={"gpus_per_worker": 1}).train) == GPU


@pytest.mark.parametrize(
    ("overrides", "debug", "message"),
    [
        ({"train.gpus_per_worker": 1}, False, "asks for a GPU, and PyTorch"),
        ({"kmeans.gpus_per_shard": 1}, True, r"gpus_per_shard=1: neither torch nor FAISS sees a GPU"),
        ({"train.gpus_per_worker": 0.5, "train.num_workers": 2}, False, "needs a GPU of its own, as NCCL"),
    ],
)
def test_a_single_run_is_refused_before_its_data_are_read(
    overrides: dict, debug: bool, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object) -> None:
        raise AssertionError("the data were read")

    monkeypatch.setattr(runs, "load_data", read)
    with pytest.raises(UserError, match=message):
        clray.train({"data": {"name": "digits"}, "augmentation": {"name": "digits"}}, overrides, debug=debug)


@pytest.mark.parametrize("value", [-1, "yes", True, None, float("nan"), float("inf")])
def test_other_values_are_refused_in_one_line(tiny_config: Callable[..., Config], value: object) -> None:
    with pytest.raises(UserError, match="gpus_per_worker must be auto, or a number that is at least 0; got") as caught:
        tiny_config(train={"gpus_per_worker": value})
    assert len(str(caught.value).splitlines()) == 1


def test_a_clustering_on_gpus_that_are_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"kmeans\.gpus_per_shard=1: neither torch nor FAISS sees a GPU"):
        clray.cluster(torch.randn(20, 4).numpy(), 2, use_ray=False, gpus_per_shard=1)


def test_a_share_of_a_gpu_bounds_its_memory_and_is_given_back(
    tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[object] = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: shares.append(share))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: shares.append("emptied"))
    quarter = tiny_config(train={"gpus_per_worker": 0.25}).train
    with own_share(quarter, CPU):
        pass
    assert shares == []
    with pytest.raises(RuntimeError), own_share(quarter, GPU):
        raise RuntimeError
    assert shares == [0.25, "emptied", 1.0]


def test_objects_never_go_by_nccl() -> None:
    assert backend_of(1.0) == "cpu:gloo,cuda:nccl"
    assert backend_of(0.0) == "gloo"
