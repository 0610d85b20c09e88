import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from clray.objective.prototypes import concentrations, proto_nce


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 10), st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(0, 1000))
def test_value_and_gradient_equal_a_float64_reference(batch: int, counts: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(batch, 5, generator=generator), dim=1)
    prototypes = [F.normalize(torch.randn(k, 5, generator=generator), dim=1) for k in counts]
    phis = [0.05 + torch.rand(k, generator=generator) for k in counts]
    ids = torch.stack([torch.randint(k, (batch,), generator=generator, dtype=torch.int32) for k in counts])
    mine, yours = z.clone().requires_grad_(), z.double().requires_grad_()
    loss = proto_nce(mine, ids, prototypes, phis)
    loss.backward()
    total = torch.zeros((), dtype=torch.float64)
    for own, centers, phi in zip(ids, prototypes, phis, strict=True):
        for i in range(batch):
            scores = torch.exp(centers.double() @ yours[i] / phi.double())
            total = total - torch.log(scores[own[i]] / scores.sum()) / batch / len(counts)
    total.backward()
    assert loss.item() == pytest.approx(total.item(), rel=1e-4, abs=1e-5)
    torch.testing.assert_close(mine.grad.double(), yours.grad, rtol=1e-3, atol=1e-4)


def test_concentrations_follow_the_formula() -> None:
    rng = np.random.default_rng(0)
    ids, distances = rng.integers(12, size=400), rng.uniform(0.1, 1, size=400)
    phi = np.array([distances[ids == k].mean() / np.log((ids == k).sum() + 10) for k in range(12)])
    low, high = np.percentile(phi, [10, 90])
    expected = np.clip(phi, low, high)
    found = concentrations(distances, ids, 12, temperature=0.2)
    np.testing.assert_allclose(found, expected * 0.2 / expected.mean(), rtol=1e-5)
    assert found.mean() == pytest.approx(0.2)


def test_empty_and_lone_clusters_take_the_widest() -> None:
    distances, ids = np.array([0.5, 0.7, 0.1, 0.2, 0.0]), np.array([0, 0, 1, 1, 2])
    found = concentrations(distances, ids, 4, temperature=0.2)
    assert found[2] == found[3] == found.max()


def test_points_on_their_centroids_give_the_mean() -> None:
    assert concentrations(np.zeros(4), np.array([0, 0, 1, 1]), 2, temperature=0.3).tolist() == pytest.approx([0.3, 0.3])
