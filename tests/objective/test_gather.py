"""Two gloo workers against one process: same loss, same gradient."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F

from clray.objective.contrastive import cl_infonce

BATCH, DIM, TEMPERATURE = 12, 6, 0.2


def batch_and_model() -> tuple[torch.Tensor, torch.Tensor, torch.nn.Linear]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, BATCH, DIM, generator=generator)
    ids = torch.randint(4, (BATCH,), generator=generator)
    model = torch.nn.Linear(DIM, DIM, bias=False)
    torch.nn.init.orthogonal_(model.weight, generator=generator)
    return x, ids, model


def loss_and_gradient(x: torch.Tensor, ids: torch.Tensor, model: torch.nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    z = F.normalize(model(x), dim=-1)
    loss = cl_infonce(z, torch.stack([ids, ids // 2]), temperature=TEMPERATURE).loss
    loss.backward()
    (weight,) = model.parameters()
    return loss.detach(), weight.grad


def worker(rank: int, world_size: int, rendezvous: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
    x, ids, model = batch_and_model()
    own = torch.arange(rank, BATCH, world_size)
    ddp = torch.nn.parallel.DistributedDataParallel(model)
    loss, gradient = loss_and_gradient(x[:, own], ids[own], ddp)
    dist.all_reduce(loss)
    torch.save((loss / world_size, gradient), f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 4])
def test_workers_agree_with_one_process_on_loss_and_gradient(tmp_path: Path, world_size: int) -> None:
    mp.spawn(worker, (world_size, str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=world_size)
    loss, gradient = loss_and_gradient(*batch_and_model())
    for rank in range(world_size):
        worker_loss, worker_gradient = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(worker_loss, loss, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(worker_gradient, gradient, rtol=1e-5, atol=1e-6)
