import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from clray.objective.contrastive import cl_infonce


def embeddings(batch: int, dim: int, seed: int, views: int = 2) -> torch.Tensor:
    z = torch.randn(views, batch, dim, generator=torch.Generator().manual_seed(seed))
    return F.normalize(z, dim=-1)


def double_loop(z: torch.Tensor, cluster_ids: torch.Tensor, temperature: float) -> float:
    """The formula as it is written, one pair at a time, in float64."""
    anchors = z.double().flatten(0, 1).tolist()
    ids = cluster_ids.tolist() * z.shape[0]
    total, num_anchors = 0.0, 0
    for i, anchor in enumerate(anchors):
        scores = {
            j: math.exp(sum(x * y for x, y in zip(anchor, other, strict=True)) / temperature)
            for j, other in enumerate(anchors)
            if j != i
        }
        positives = [j for j in scores if ids[j] == ids[i]]
        if positives:
            normalizer = sum(scores.values())
            total -= sum(math.log(scores[j] / normalizer) for j in positives) / len(positives)
            num_anchors += 1
    return total / num_anchors


@settings(deadline=None, max_examples=25)
@given(
    batch=st.integers(2, 12),
    num_clusters=st.integers(1, 12),
    temperature=st.sampled_from([0.07, 0.2, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_equals_the_double_loop_in_float64(batch: int, num_clusters: int, temperature: float, seed: int) -> None:
    z = embeddings(batch, 5, seed)
    ids = torch.randint(num_clusters, (batch,), generator=torch.Generator().manual_seed(seed))
    loss = cl_infonce(z, ids, temperature=temperature).item()
    assert loss == pytest.approx(double_loop(z, ids, temperature), rel=2e-5, abs=1e-5)


def test_renaming_the_clusters_changes_nothing() -> None:
    z, ids = embeddings(16, 8, 0), torch.randint(4, (16,))
    renamed = torch.tensor([70, 3, 11, 0])[ids]
    assert torch.equal(cl_infonce(z, ids, temperature=0.1), cl_infonce(z, renamed, temperature=0.1))


def test_permuting_the_batch_changes_nothing() -> None:
    z, ids, order = embeddings(16, 8, 1), torch.randint(4, (16,)), torch.randperm(16)
    permuted = cl_infonce(z[:, order], ids[order], temperature=0.1)
    torch.testing.assert_close(permuted, cl_infonce(z, ids, temperature=0.1))


def test_singleton_clusters_give_nt_xent() -> None:
    """NT-Xent by cross-entropy: each view must pick the other view of its image among all other views."""
    batch, temperature = 12, 0.3
    z = embeddings(batch, 8, 2)
    flat = z.flatten(0, 1)
    logits = (flat @ flat.T / temperature).fill_diagonal_(-torch.inf)
    partner = (torch.arange(2 * batch) + batch) % (2 * batch)
    expected = F.cross_entropy(logits, partner)
    torch.testing.assert_close(cl_infonce(z, torch.arange(batch), temperature=temperature), expected)


def test_labels_give_supcon() -> None:
    """SupCon's L_out written with a normalised mask, as its own authors do (Khosla et al., equation 2)."""
    z, labels, temperature = embeddings(20, 8, 3), torch.arange(20) % 4, 0.1
    flat, all_labels = z.flatten(0, 1).double(), labels.repeat(2)
    log_probability = (flat @ flat.T / temperature).fill_diagonal_(-torch.inf).log_softmax(dim=1)
    mask = (all_labels[:, None] == all_labels[None]).double().fill_diagonal_(0)
    expected = -(mask * log_probability.fill_diagonal_(0)).sum(1).div(mask.sum(1)).mean()
    assert cl_infonce(z, labels, temperature=temperature).item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradient_matches_finite_differences() -> None:
    ids = torch.tensor([0, 0, 1, 2])

    def loss(raw: torch.Tensor) -> torch.Tensor:
        # cl_infonce computes in float32; a float64 twin of it would test the twin.
        return cl_infonce(F.normalize(raw, dim=-1), ids, temperature=0.5)

    raw = embeddings(4, 3, 4).clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(raw), raw)
    step = 1e-2
    for place in [(0, 0, 0), (1, 2, 1), (0, 3, 2)]:
        shift = torch.zeros_like(raw)
        shift[place] = step
        with torch.no_grad():
            numeric = (loss(raw + shift) - loss(raw - shift)) / (2 * step)
        assert gradient[place].item() == pytest.approx(numeric.item(), abs=2e-3)


def test_base_temperature_multiplies_by_the_ratio() -> None:
    z, ids = embeddings(8, 4, 5), torch.arange(8) % 3
    plain = cl_infonce(z, ids, temperature=0.2)
    torch.testing.assert_close(cl_infonce(z, ids, temperature=0.2, base_temperature=0.07), plain * (0.2 / 0.07))


def test_anchors_without_a_positive_are_left_out() -> None:
    """One view per image: only the images of cluster 0 have a positive."""
    z, ids = embeddings(5, 4, 6, views=1), torch.tensor([0, 0, 1, 2, 3])
    assert cl_infonce(z, ids, temperature=0.2).item() == pytest.approx(double_loop(z, ids, 0.2), rel=1e-5)
    assert cl_infonce(z, torch.arange(5), temperature=0.2).item() == 0


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_refuses_a_temperature_that_is_not_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature must be greater than 0"):
        cl_infonce(embeddings(4, 4, 7), torch.arange(4), temperature=temperature)


def test_small_temperatures_stay_finite() -> None:
    z = embeddings(8, 4, 8).requires_grad_()
    loss = cl_infonce(z, torch.arange(8) % 2, temperature=1e-3)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()
