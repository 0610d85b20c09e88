"""A user's own objective: the same port as clray's own, and its faults shown before anything is trained."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import clray
from clray.config import Config, parse_config
from clray.data.load import load_dataset
from clray.errors import UserError
from clray.training.checkpoint import read_checkpoint
from clray.training.start import prepare
from clray.training.trainer import run
from tests.conftest import TINY
from tests.training import own_objectives as own
from tests.training.test_trainer import train, without_times
from tests.training.workers.test_resumed_group import GlooSession

MakeConfig = Callable[..., Config]
PLACE = "tests.training.own_objectives"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(folder)["model"]


def assert_same(folders: list[Path]) -> None:
    first, second = map(weights, folders)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "sections", [{}, {"clusters": {"granularities": [12, 6]}}, {"train": {"accumulate_batches": 2}}]
)
def test_one_that_does_the_same_gives_the_same_weights(
    tiny_config: MakeConfig, tmp_path: Path, sections: dict
) -> None:  # fmt: skip
    folders = []
    for name in ("cl-infonce", f"{PLACE}:Again"):
        config = tiny_config(allow_user_modules=True, objective={"name": name}, **sections)
        folders.append(tmp_path / name.replace(":", "_"))
        train(config, load_dataset(config.data), folders[-1])
    assert_same(folders)


def test_one_that_draws_pairs_is_given_pairs(tiny_config: MakeConfig, tmp_path: Path) -> None:
    losses = []
    for settings in ({"form": "pair-sampled"}, {"name": f"{PLACE}:PairsAgain"}):
        config = tiny_config(allow_user_modules=True, objective=settings, clusters={"source": "labels"})
        losses.append([m["train/loss"] for m in train(config, load_dataset(config.data), tmp_path / str(len(losses)))])
    assert losses[0] == pytest.approx(losses[1], abs=5e-4)


def test_what_it_carries_is_resumed(tiny_config: MakeConfig, tmp_path: Path) -> None:
    sections = {"objective": {"name": f"{PLACE}:Sticky", "dual_head": True}, "train": {"num_epochs": 4}}
    config = tiny_config(allow_user_modules=True, **sections)
    data = load_dataset(config.data)
    prepare(config, data)
    whole = train(config, data, tmp_path / "whole")
    train(config, data, tmp_path / "cut", stop_after=3)
    assert without_times(train(config, data, tmp_path / "cut")) == without_times(whole)
    assert_same([tmp_path / "whole", tmp_path / "cut"])
    assert read_checkpoint(tmp_path / "whole")["objective"]["num_heard"] == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoLoss", "NoLoss must define loss(self, batch)"),
        ("NoSubclass", "expected a subclass of clray.Objective; got the class NoSubclass"),
        ("no_class", "expected a subclass of clray.Objective; got function"),
        ("NoViews", "NoViews.num_views must be a whole number, at least 1; got 0"),
        ("missing", "cannot be imported (AttributeError"),
        ("ReturnsNothing", "the loss must be a scalar float tensor that depends on the embeddings; got NoneType"),
        ("ReturnsFloat", "the loss must be a scalar float tensor that depends on the embeddings; got float"),
        ("ReturnsLosses", "got float32 [8], reduce it with .mean()"),
        ("Detached", "this one has no gradient, was it detached?"),
        ("Unrelated", "does not depend on the weights of the encoder"),
        ("NotFinite", "the loss of 8 random images is -inf; it must be finite"),
        ("BadGradient", "gradients that are NaN or infinite"),
        ("WrongShape", "own_objectives.py:"),
        ("WrongStart", "WrongStart(settings, model) raised TypeError"),
        ("WrongHearing", "take_clusters raised TypeError"),
        ("WrongStep", "a step must return StepValue; got Tensor"),
        ("WrongState", "state_dict must hold tensors and plain values alone"),
        ("WrongEmbedding", "embedding_model must return a module; got str"),
    ],
)
def test_a_fault_is_told_before_training(tiny_config: MakeConfig, name: str, message: str) -> None:
    config = tiny_config(allow_user_modules=True, objective={"name": f"{PLACE}:{name}"})
    before = torch.random.get_rng_state()
    with pytest.raises(UserError) as refused:
        prepare(config, load_dataset(config.data))
    assert message in str(refused.value)
    assert str(refused.value).startswith(f"objective.name={PLACE}:{name}: ")
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_rehearsal_leaves_the_model_as_it_was(tiny_config: MakeConfig) -> None:
    models = []
    for name in ("cl-infonce", f"{PLACE}:Again"):
        config = tiny_config(allow_user_modules=True, objective={"name": name})
        models.append(prepare(config, load_dataset(config.data)).model)
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert all(each.grad is None for each in models[1].parameters())


@pytest.mark.slow
def test_the_class_itself_trains_from_python(tmp_path: Path) -> None:
    run = clray.train(TINY, {"output": str(tmp_path), "objective.name": own.Sticky}, name="own", debug=True)
    assert run.config.objective.name == f"{PLACE}:Sticky"
    with pytest.raises(UserError, match="ReturnsNothing: the loss must be"):
        clray.train(TINY, {"output": str(tmp_path), "objective.name": own.ReturnsNothing}, name="no", debug=True)
    assert not (tmp_path / "no").exists()


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for part, name in (("builtin", "cl-infonce"), ("own", f"{PLACE}:Again")):
        tree = {
            **TINY,
            "allow_user_modules": True,
            "objective": {"name": name},
            "clusters": {"source": "labels"},
            "train": {**TINY["train"], "num_workers": 2},
        }
        config = parse_config(tree)
        run(config, load_dataset(config.data), GlooSession(Path(folder) / part, rank, None))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_workers_train_one_to_the_weights_of_the_other(tmp_path: Path) -> None:
    mp.spawn(worker, (str(tmp_path),), nprocs=2)
    assert_same([tmp_path / "builtin", tmp_path / "own"])
