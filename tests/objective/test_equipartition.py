"""Codes and loss of SwAV against Sinkhorn's scaling written out in float64, and over workers."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn import functional as F

from clray.objective.equipartition import balanced_codes, swapped_prediction

OPTIONS = {"epsilon": 0.05, "num_iterations": 3}


def similarities(views: int, batch: int, prototypes: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    z = F.normalize(torch.randn(views, batch, 4, generator=generator), dim=2)
    return z @ F.normalize(torch.randn(prototypes, 4, generator=generator), dim=1).T


def sinkhorn(scores: np.ndarray, epsilon: float, num_iterations: int) -> np.ndarray:
    """The transport plan [prototypes, batch] with the wanted margins 1/K and 1/B, then a distribution per image."""
    plan = np.exp(scores.astype(np.float64).T / epsilon)
    plan /= plan.sum()
    num_prototypes, batch = plan.shape
    for _ in range(num_iterations):
        for k in range(num_prototypes):
            plan[k] *= 1 / num_prototypes / plan[k].sum()
        for i in range(batch):
            plan[:, i] *= 1 / batch / plan[:, i].sum()
    return (plan * batch).T


@pytest.mark.parametrize("num_iterations", [1, 3, 50])
def test_codes_are_those_of_sinkhorn_in_float64(num_iterations: int) -> None:
    (scores,) = similarities(1, 12, 5)
    codes = balanced_codes(scores, epsilon=0.05, num_iterations=num_iterations)
    np.testing.assert_allclose(codes, sinkhorn(scores.numpy(), 0.05, num_iterations), atol=1e-5)
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(12))
    if num_iterations == 50:
        torch.testing.assert_close(codes.sum(dim=0), torch.full((5,), 12 / 5), rtol=1e-2, atol=0)


def test_a_small_epsilon_gives_hard_codes_and_no_overflow() -> None:
    codes = balanced_codes(similarities(1, 12, 5)[0], epsilon=1e-4, num_iterations=3)
    assert torch.isfinite(codes).all()
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(12))
    assert codes.max(dim=1).values.median() > 0.999


@pytest.mark.parametrize("views", [2, 3])
def test_each_view_predicts_the_codes_of_the_others(views: int) -> None:
    scores = similarities(views, 6, 5).requires_grad_()
    loss = swapped_prediction(scores, temperature=0.1, **OPTIONS)
    losses = []
    for v in range(views):
        logits = scores[v].detach().double().numpy() / 0.1
        predicted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        for w in range(views):
            if w != v:
                codes = sinkhorn(scores[w].detach().numpy(), **OPTIONS)
                losses += [-(codes[i] * predicted[i]).sum() for i in range(6)]
    assert loss.item() == pytest.approx(np.mean(losses), abs=1e-5)
    loss.backward()
    predicted, codes = (scores.detach() / 0.1).softmax(dim=2), [balanced_codes(each, **OPTIONS) for each in scores]
    for v in range(views):  # of cross-entropy alone: the codes are constants
        expected = sum(predicted[v] - codes[w] for w in range(views) if w != v) / 0.1 / 6 / (views * (views - 1))
        torch.testing.assert_close(scores.grad[v], expected)


def worker(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    own = similarities(2, 12, 5)[:, rank::world_size].requires_grad_()
    loss = swapped_prediction(own, temperature=0.1, **OPTIONS)
    loss.backward()
    torch.save((loss.detach(), own.grad), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_workers_agree_with_one_process_on_loss_and_gradient(tmp_path: Path) -> None:
    mp.spawn(worker, (3, str(tmp_path)), nprocs=3)
    scores = similarities(2, 12, 5).requires_grad_()
    loss = swapped_prediction(scores, temperature=0.1, **OPTIONS)
    loss.backward()
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(3)]
    torch.testing.assert_close(torch.stack([each for each, _ in found]).mean(), loss.detach())
    for rank, (_, gradient) in enumerate(found):
        # Each worker's loss is a mean over its share.
        torch.testing.assert_close(gradient / 3, scores.grad[:, rank::3], rtol=1e-5, atol=1e-7)
