"""A step of training asks no tensor for its value, so that a GPU never waits for the host; here on CPU tensors."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.testing._internal.distributed.fake_pg import FakeStore

from clray.config import Config
from clray.data.held import held_within
from clray.data.images.array import ArrayImages
from clray.data.samples import Dataset, Samples
from clray.kmeans.lloyd import Clustering
from clray.training import trainer
from clray.training.metrics import Metrics
from clray.training.workers.port import agree
from tests.training.waits import Waits

MakeConfig = Callable[..., Config]
CPU = torch.device("cpu")


class Enough(Exception):
    pass


@dataclass
class Later:
    """Clusters that are there when they have been asked for twice."""

    vectors: np.ndarray
    counts: tuple[int, ...]
    polls: int = 2

    def ready(self) -> bool:
        self.polls -= 1
        return self.polls < 0

    def result(self) -> list[Clustering]:
        found = []
        for count in self.counts:
            ids = (np.arange(len(self.vectors)) % count).astype(np.int32)
            found.append(Clustering(self.vectors[:count].copy(), ids, 1.0))
        return found


@dataclass
class Watched:
    """A session of one of `world_size` workers that watches each step, from its beginning to the next of its epoch."""

    world_size: int
    num_steps: int
    waits: Waits
    rank: int = 0
    device: torch.device = CPU
    steps: list[int] = field(default_factory=list)
    is_watching: bool = False

    def cluster(self, vectors: np.ndarray, num_clusters: tuple[int, ...], **_: Any) -> Later:
        return Later(vectors, num_clusters)

    def restore(self, load: Any, rows: Any) -> bool:  # noqa: ARG002
        return False

    def at_step(self, step: int, steps_per_epoch: int) -> None:
        self.stop()
        self.steps.append(step)
        if len(self.steps) > self.num_steps:
            raise Enough
        # The first step builds what is kept, and its clusters are waited for.
        if step > 0 and (step + 1) % steps_per_epoch:
            self.is_watching = True
            self.waits.__enter__()

    def stop(self) -> None:
        if self.is_watching:
            self.is_watching = False
            self.waits.__exit__(None, None, None)

    def report(self, metrics: Metrics, snapshot: Any) -> None: ...

    def save(self, snapshot: Any) -> None: ...

    def close(self) -> None: ...

    def share(self, make: Callable[[], np.ndarray]) -> np.ndarray:
        return make()


@contextmanager
def workers(number: int) -> Iterator[None]:
    """A process group in which the others say what this worker says."""
    if number == 1:
        yield
        return
    dist.init_process_group("fake", rank=0, world_size=number, store=FakeStore())
    try:
        yield
    finally:
        dist.destroy_process_group()


INSTANCES, LABELS = {"clusters": {"source": "instance"}}, {"clusters": {"source": "labels"}}
GRANULARITIES = {"clusters": {"granularities": [6, 3]}}
OFTEN = {"warmup_epochs": 0, "every_steps": 2, "mode": "async"}
"""Clusters are asked for, waited for and taken over within an epoch."""
RUNS: dict[str, dict[str, Any]] = {
    "infonce": {"objective": {"name": "infonce"}, **INSTANCES},
    "two heads": {"objective": {"dual_head": True, "base_temperature": 0.07}, **LABELS},
    "supcon, lars": {"objective": {"name": "supcon"}, **LABELS, "train": {"optimizer": "lars"}},
    "bank": {"recluster": {"embeddings": "bank"}, **GRANULARITIES},
    "bank without momentum": {"recluster": {"bank_momentum": 0.0}, "train": {"sampler": "cluster"}},
    "pairs and bank": {"objective": {"form": "pair-sampled"}, "train": {"accumulate_batches": 2}},
    "queue, sgd": {"objective": {"negatives": "queue", "queue_size": 24}, "train": {"optimizer": "sgd"}},
    "pcl": {"objective": {"name": "pcl", "queue_size": 24}, **GRANULARITIES},
    "ccl-k": {"objective": {"name": "ccl-k", "kernel": "rbf"}, "clusters": {"value_columns": ["age"]}},
    "cluster prediction": {"objective": {"name": "cluster-prediction"}},
    "supervised": {"objective": {"name": "supervised"}, **LABELS},
    "all augmentations": {"augmentation": {"blur_probability": 0.5, "solarize_probability": 0.2}, **INSTANCES},
    "digits": {"augmentation": {"name": "digits"}, **INSTANCES},
    "small views, instance head": {
        "augmentation": {"name": "swav", "min_crop_scale": [0.3, 0.5], "blur_probability": [1.0, 0.1]},
        "objective": {"dual_head": True, "dual_head_clusters": "instance-head"},
        **LABELS,
    },
    "small views, queue": {
        "augmentation": {"num_small_views": 2},
        "objective": {"negatives": "queue", "queue_size": 24},
    },
    "frozen encoder": {"encoder": {"name": "small_cnn", "width": 4, "frozen_epochs": 1}, **LABELS},
}


def images(count: int, generator: np.random.Generator) -> Samples:
    pixels = generator.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)
    codes = (np.arange(count) % 4).astype(np.int32)
    return Samples(ArrayImages(pixels), codes, {"age": codes})


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("name", RUNS)
def test_a_step_waits_for_nothing(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, name: str, num_workers: int
) -> None:
    monkeypatch.setattr("clray.training.recluster.rows_on_leader", lambda rows, counts: [rows] * len(counts))
    # What torch does with gradients is its own; the group in which others agree has no futures for it.
    monkeypatch.setattr(trainer, "wrap_for_workers", lambda model, *_: model)
    # Batches are indexed where the images are held.
    monkeypatch.setattr(trainer, "held_on", partial(held_within, math.inf))
    sections = RUNS[name]
    train = {"num_epochs": 4, "num_workers": num_workers, "global_batch_size": 16} | sections.get("train", {})
    recluster = OFTEN | sections.get("recluster", {})
    config = tiny_config(**{"augmentation": {"name": "simclr"}, **sections, "train": train, "recluster": recluster})
    generator = np.random.default_rng(0)
    names = {None: tuple("abcd"), "age": ("1", "2", "4", "8")}
    data = Dataset(images(98, generator), images(8, generator), 4, 3, names)
    session = Watched(num_workers, 10, Waits("agree", "gather_objects"))
    with workers(num_workers), suppress(Enough):
        try:
            trainer.run(config, data, session)
        finally:
            session.stop()
    assert len(session.steps) == 11
    assert session.waits.found == []


def test_workers_agree_on_the_host() -> None:
    session = Watched(2, 0, Waits(), device=torch.device("meta"))  # has no values to ask for
    with workers(2):
        assert [agree(flag, session) for flag in (True, False)] == [True, False]


WAITING: dict[str, Callable[[Tensor], object]] = {
    "item": lambda x: x[0].item(),
    "bool": lambda x: bool(x[0] > 0),
    "float": lambda x: float(x[0]),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "to": lambda x: x.to("cpu"),
    "mask": lambda x: x[x > 0],
    "assignment by a mask": lambda x: x.clone().__setitem__(x > 0, torch.ones(2)),
    "masked_select": lambda x: x.masked_select(x > 0),
    "nonzero": lambda x: (x > 0).nonzero(),
    "where": lambda x: torch.where(x > 0),
    "unique": lambda x: x.unique(),
    "repeat_interleave": lambda x: x.repeat_interleave(torch.tensor([1, 2, 3])),
    "equal": lambda x: torch.equal(x, x),
    "backward": lambda x: Waiting.apply(x.clone().requires_grad_()).sum().backward(),
}


class Waiting(torch.autograd.Function):
    """Asks for a value in its backward pass."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        return gradient * gradient.sum().item()


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_is_found(name: str) -> None:
    x = torch.tensor([0.5, -1.0, 2.0])
    with Waits() as waits:
        (x * 2).sum()
        x[torch.tensor([0, 1])]
    assert waits.found == []
    with waits:
        WAITING[name](x)
    assert waits.found
