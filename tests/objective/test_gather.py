"""Two gloo workers against one process: same loss, same gradient."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F

from clray.objective.contrastive import cl_infonce, cl_infonce_of_small_views, cross_view_cl_infonce
from clray.objective.gather import all_gather, all_gather_with_ids
from clray.objective.kernel import Form, Kernel, ccl_k

BATCH, DIM, TEMPERATURE = 12, 6, 0.2
NUM_VIEWS = 2
"""Behind them come small views."""


def batch_and_model() -> tuple[torch.Tensor, torch.Tensor, torch.nn.Linear]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(NUM_VIEWS + 3, BATCH, DIM, generator=generator)
    ids = torch.randint(4, (BATCH,), generator=generator)
    model = torch.nn.Linear(DIM, DIM, bias=False)
    torch.nn.init.orthogonal_(model.weight, generator=generator)
    return x, ids, model


def losses_and_gradient(
    x: torch.Tensor, ids: torch.Tensor, model: torch.nn.Module, images: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of each objective, with positives that count alike and with weights; and the gradient of their sum."""
    z, both = F.normalize(model(x), dim=-1), torch.stack([ids, ids // 2])
    large, of_small = z[:NUM_VIEWS], partial(cl_infonce_of_small_views, z[NUM_VIEWS:])
    losses = [
        each(large, both, temperature=TEMPERATURE, cluster_weight=weight, images=images).loss
        for each in (cl_infonce, cross_view_cl_infonce, of_small)
        for weight in (1.0, 0.3)
    ]
    values, kernel = torch.randn(BATCH, 2, generator=torch.Generator().manual_seed(1)), Kernel("rbf")
    forms: tuple[Form, ...] = ("log-of-mean", "mean-of-logs")
    losses += [
        ccl_k(large, images, values, kernel=kernel, temperature=TEMPERATURE, form=form, small=small).loss
        for form in forms
        for small in (None, z[NUM_VIEWS:])
    ]
    found = torch.stack(losses)
    found.sum().backward()
    (weight,) = model.parameters()
    return found.detach(), weight.grad


def worker(rank: int, world_size: int, rendezvous: str, results: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size)
    x, ids, model = batch_and_model()
    own = torch.arange(rank, BATCH, world_size)
    ddp = torch.nn.parallel.DistributedDataParallel(model)
    losses, gradient = losses_and_gradient(x[:, own], ids[own], ddp, own)
    dist.all_reduce(losses)
    torch.save((losses / world_size, gradient), f"{results}/{rank}.pt")
    holds_rows_with_their_ids(rank, world_size)
    dist.destroy_process_group()


def holds_rows_with_their_ids(rank: int, world_size: int) -> None:
    """Against gathering each for itself and summing the whole gradient on every worker, as was done before."""
    generator = torch.Generator().manual_seed(rank)
    rows, weights = (torch.randn(*shape, generator=generator) for shape in ((5, DIM), (world_size * 5, DIM)))
    for ids in (torch.tensor([[0, -1, 2**31 - 1, 7, -(2**31)]] * 3, dtype=torch.int32) - rank, torch.arange(5)[None]):
        parts = [torch.empty_like(ids) for _ in range(world_size)]
        dist.all_gather(parts, ids)
        together, single = rows.clone().requires_grad_(), rows.clone().requires_grad_()
        found, found_ids = all_gather_with_ids(together, ids)
        torch.testing.assert_close(found_ids, torch.cat(parts, dim=1), rtol=0, atol=0)
        torch.testing.assert_close(found, all_gather(single).flatten(0, 1), rtol=0, atol=0)
        (found * weights).sum().backward()
        (all_gather(single).flatten(0, 1) * weights).sum().backward()
        whole = weights.clone()
        dist.all_reduce(whole)
        for gradient in (together.grad, single.grad):
            torch.testing.assert_close(gradient, whole[5 * rank : 5 * rank + 5], rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [2, 4])
def test_workers_agree_with_one_process_on_loss_and_gradient(tmp_path: Path, world_size: int) -> None:
    mp.spawn(worker, (world_size, str(tmp_path / "rendezvous"), str(tmp_path)), nprocs=world_size)
    losses, gradient = losses_and_gradient(*batch_and_model(), torch.arange(BATCH))
    for rank in range(world_size):
        worker_losses, worker_gradient = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        torch.testing.assert_close(worker_losses, losses, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(worker_gradient, gradient, rtol=1e-5, atol=1e-6)
