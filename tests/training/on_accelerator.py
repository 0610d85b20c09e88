"""Training, clustering and evaluation keep to the device they are given; here one that is not there."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from clray.config import Config
from clray.data.load import load_dataset
from clray.kmeans.in_training import TrainingKMeans
from clray.kmeans.refresh import LocalKMeans
from clray.objective.contrastive import cl_infonce
from clray.training import trainer
from clray.training.accuracy import evaluate
from clray.training.encoder_start import fresh_model
from clray.training.workers.process import LocalSession
from tests.accelerator import Accelerator, device

OBJECTIVES: dict[str, dict[str, dict]] = {
    "cl-infonce": {},
    "queue": {"objective": {"negatives": "queue", "queue_size": 64}, "recluster": {"mode": "async"}},
    "on-device": {"kmeans": {"backend": "torch"}, "clusters": {"granularities": [6, 3]}},
    "pcl": {"objective": {"name": "pcl"}, "clusters": {"granularities": [6, 3]}},
    "cluster-prediction": {"objective": {"name": "cluster-prediction"}, "recluster": {"warmup_epochs": 0}},
    "pair-sampled": {"objective": {"form": "pair-sampled"}, "recluster": {"embeddings": "pass"}},
    "dual-head": {"objective": {"dual_head": True}, "train": {"sampler": "cluster", "accumulate_batches": 2}},
    "supervised": {"objective": {"name": "supervised"}, "clusters": {"source": "labels"}},
    "supcon": {"objective": {"name": "supcon"}, "clusters": {"source": "labels"}, "train": {"optimizer": "sgd"}},
    "infonce": {"objective": {"name": "infonce"}, "clusters": {"source": "instance"}, "train": {"optimizer": "lars"}},
    "synthetic": {"clusters": {"source": "synthetic", "num_splits": 2}},
}
"""Each objective, each source of clusters by which the code differs, each optimizer."""


@pytest.fixture
def accelerator() -> Iterator[torch.device]:
    place = device()
    with Accelerator():
        yield place


def test_the_device_refuses_what_a_gpu_would(accelerator: torch.device) -> None:
    here, there = torch.ones(3, device=accelerator), torch.ones(3)
    assert here.device == accelerator
    assert (here + 1).tolist() == (here * torch.tensor(2.0)).tolist() == [2.0] * 3
    assert here[torch.tensor([0, 1])].device == accelerator
    assert here.cpu().numpy().sum() == 3
    with pytest.raises(RuntimeError, match="add: Expected all tensors to be on the same device"):
        here + there
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        there[here.long()]
    with pytest.raises(RuntimeError, match="numpy"):
        here.numpy()


def test_its_gradients_are_those_of_the_cpu(accelerator: torch.device) -> None:
    z = torch.nn.functional.normalize(torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0)), dim=2)
    ids, gradients = torch.arange(6)[None] // 2, []
    for place in (torch.device("cpu"), accelerator):
        leaf = z.clone().to(place).requires_grad_()
        cl_infonce(leaf, ids.to(place), temperature=0.2).loss.backward()
        gradients.append(leaf.grad.cpu())
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_run_keeps_to_its_device(
    name: str, accelerator: torch.device, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    sections = dict(OBJECTIVES[name])
    train = {"precision": "float32", "num_epochs": 3, **sections.pop("train", {})}
    few = {"max_train_images": 64, "max_test_images": 32}
    config = tiny_config(train=train, data=few, **sections)
    data = load_dataset(config.data)
    cluster = LocalKMeans(config.kmeans)
    if config.kmeans.backend == "torch":
        cluster = TrainingKMeans(config.kmeans, accelerator)
    session = LocalSession(tmp_path, cluster, lambda _: None, accelerator)
    for num_epochs in (1, 2):  # the second resumes
        this = trainer._Run(config, data, session, trainer.Start(trainer.start_clusters(config, data)))
        assert this.state.epoch == num_epochs - 1
        this.train_until(num_epochs)
        session.close()  # waits for the checkpoint
    assert {each.device for each in this.state.model.parameters()} == {accelerator}


def test_evaluation_keeps_to_its_device(
    accelerator: torch.device, tiny_config: Callable[..., Config], tmp_path: Path
) -> None:
    few = {"max_train_images": 64, "max_test_images": 32}
    config = tiny_config(train={"precision": "float32"}, data=few)
    data = load_dataset(config.data)
    found = []
    for place in (accelerator, torch.device("cpu")):
        session = LocalSession(tmp_path, None, lambda _: None, place)
        model = fresh_model(config, data.num_channels, 2).to(place)
        found.append(evaluate(config, model, data, session, with_test=True))
    for name, value in found[1].items():
        assert name == "eval/seconds" or found[0][name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
