import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from clray.objective import normalizer
from clray.objective.contrastive import (
    ObjectiveValue,
    contrast,
    cross_view_cl_infonce,
    instance_contrast,
    pair_sampled_cl_infonce,
)
from clray.objective.contrastive import cl_infonce as with_positives


def cl_infonce(z: torch.Tensor, cluster_ids: torch.Tensor, **options: float) -> torch.Tensor:
    return with_positives(z, cluster_ids, **options).loss


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


def weighted_double_loop(
    z: torch.Tensor, cluster_ids: torch.Tensor, images: torch.Tensor, weight: float, temperature: float
) -> torch.Tensor:
    """The formula with weights as it is written, differentiable, in float64."""
    anchors, ids, of = z.double().flatten(0, 1), cluster_ids.tolist() * z.shape[0], images.tolist() * z.shape[0]
    losses = []
    for i, anchor in enumerate(anchors):
        others = [j for j in range(len(anchors)) if j != i]
        scores = {j: torch.exp(anchor @ anchors[j] / temperature) for j in others}
        weights = {j: 1.0 if of[j] == of[i] else weight for j in others if ids[j] == ids[i]}
        logs = sum(w * (scores[j] / sum(scores.values())).log() for j, w in weights.items())
        losses.append(-logs / sum(weights.values()))
    return torch.stack(losses).mean()


def dense(
    anchors: torch.Tensor,
    ids: torch.Tensor,
    candidates: torch.Tensor,
    candidate_ids: torch.Tensor,
    temperature: float,
    own: torch.Tensor | None,
) -> torch.Tensor:
    """The same formula with whole matrices, in float64, differentiable."""
    logits = anchors @ candidates.T / temperature
    is_self = torch.zeros_like(logits, dtype=torch.bool)
    if own is not None:
        is_self[torch.arange(len(anchors)), own] = True
    log_probability = logits.masked_fill(is_self, -torch.inf).log_softmax(dim=1)
    is_positive = (ids[:, None] == candidate_ids[None]) & ~is_self
    counts = is_positive.sum(1)
    sums = log_probability.masked_fill(~is_positive, 0).sum(1)
    return -(sums / counts.clamp(min=1))[counts > 0].mean() if (counts > 0).any() else logits.sum() * 0


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 12),
    views=st.integers(1, 3),
    num_clusters=st.integers(1, 12),
    temperature=st.sampled_from([0.01, 0.07, 0.2, 1.0]),
    block=st.sampled_from([1, 30, 2**20]),
    seed=st.integers(0, 10_000),
)
def test_value_and_gradient_equal_a_float64_reference(
    batch: int, views: int, num_clusters: int, temperature: float, block: int, seed: int
) -> None:
    """In blocks of any size."""
    z = embeddings(batch, 5, seed, views)
    ids = torch.randint(num_clusters, (batch,), generator=torch.Generator().manual_seed(seed))
    mine, yours = z.clone().requires_grad_(), z.double().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(normalizer.BLOCK_ELEMENTS, "cpu", block)
        loss = cl_infonce(mine, ids, temperature=temperature)
        loss.backward()
    flat, all_ids = yours.flatten(0, 1), ids.repeat(views)
    reference = dense(flat, all_ids, flat, all_ids, temperature, torch.arange(len(flat)))
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), rel=2e-5, abs=2e-5 / temperature)
    torch.testing.assert_close(mine.grad.double(), yours.grad, rtol=1e-3, atol=2e-5 / temperature)


def test_the_reference_equals_the_double_loop() -> None:
    z, ids = embeddings(9, 5, 0).double(), torch.arange(9) % 4
    flat, all_ids = z.flatten(0, 1), ids.repeat(2)
    found = dense(flat, all_ids, flat, all_ids, 0.2, torch.arange(18)).item()
    assert found == pytest.approx(double_loop(z, ids, 0.2), rel=1e-12)


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 8), st.integers(1, 20), st.integers(1, 6), st.sampled_from([1, 2**20]), st.integers(0, 1000))
def test_anchors_against_other_candidates(num: int, others: int, num_clusters: int, block: int, seed: int) -> None:
    """As with the keys of a queue: no candidate is the anchor itself, and keys get their gradient."""
    generator = torch.Generator().manual_seed(seed)
    anchors, keys = embeddings(num, 4, seed, 1)[0], embeddings(others, 4, seed + 1, 1)[0]
    ids, key_ids = (torch.randint(num_clusters, (n,), generator=generator) for n in (num, others))
    mine, yours = (
        [each.clone().to(kind).requires_grad_() for each in (anchors, keys)] for kind in (torch.float32, torch.float64)
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(normalizer.BLOCK_ELEMENTS, "cpu", block)
        value = contrast(mine[0], ids[None], mine[1], key_ids[None], own=None, temperature=0.2)
        value.loss.backward()
    reference = dense(yours[0], ids, yours[1], key_ids, 0.2, None)
    reference.backward()
    assert value.loss.item() == pytest.approx(reference.item(), rel=1e-4, abs=1e-5)
    assert value.num_positives.item() == pytest.approx((ids[:, None] == key_ids).sum().item() / num)
    for one, other in zip(mine, yours, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-3, atol=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 9), st.integers(2, 3), st.integers(1, 9), st.floats(0, 1), st.integers(0, 1000))
def test_positives_of_other_images_count_by_their_weight(
    batch: int, views: int, num_clusters: int, weight: float, seed: int
) -> None:
    z = embeddings(batch, 5, seed, views)
    generator = torch.Generator().manual_seed(seed)
    ids, images = torch.randint(num_clusters, (batch,), generator=generator), 3 + torch.randperm(
        batch, generator=generator
    )  # fmt: skip
    mine, yours = z.clone().requires_grad_(), z.double().requires_grad_()
    value = with_positives(mine, ids, temperature=0.2, cluster_weight=weight, images=images)
    value.loss.backward()
    reference = weighted_double_loop(yours, ids, images, weight, 0.2)
    reference.backward()
    assert value.loss.item() == pytest.approx(reference.item(), rel=1e-4, abs=1e-5)
    torch.testing.assert_close(mine.grad.double(), yours.grad, rtol=1e-3, atol=1e-5)
    others = (ids[:, None] == ids).sum(1).double().mean().item() - 1
    assert value.num_positives.item() == pytest.approx(views - 1 + weight * views * others, abs=1e-4)


@pytest.mark.parametrize("with_positives", [with_positives, cross_view_cl_infonce])
@pytest.mark.parametrize("weight", [0.0, 1.0])
def test_the_ends_of_the_weight_are_infonce_and_the_plain_loss_to_the_bit(
    weight: float, with_positives: Callable[..., ObjectiveValue]
) -> None:
    z, images = embeddings(16, 8, 0), torch.arange(16) * 2 + 1
    ids = torch.stack([images % 5, images % 3, images % 2])
    found, expected = z.clone().requires_grad_(), z.clone().requires_grad_()
    value = with_positives(found, ids, temperature=0.1, cluster_weight=weight, images=images)
    plain = with_positives(expected, images if weight == 0 else ids, temperature=0.1)
    value.loss.backward()
    plain.loss.backward()
    assert torch.equal(value.loss, plain.loss)
    assert torch.equal(value.num_positives, plain.num_positives)
    assert torch.equal(found.grad, expected.grad)


def test_a_weight_is_refused_outside_its_range_and_without_images() -> None:
    z, ids = embeddings(4, 4, 0), torch.arange(4)
    with pytest.raises(ValueError, match=r"cluster_weight must be between 0 and 1; got 1\.5"):
        with_positives(z, ids, temperature=0.2, cluster_weight=1.5, images=ids)
    with pytest.raises(ValueError, match="needs images"):
        with_positives(z, ids, temperature=0.2, cluster_weight=0.5)


def test_several_granularities_give_the_mean_of_their_losses() -> None:
    z, ids = embeddings(16, 8, 0), torch.stack([torch.arange(16) % 4, torch.arange(16) % 2, torch.arange(16)])
    together = cl_infonce(z, ids, temperature=0.2)
    torch.testing.assert_close(together, torch.stack([cl_infonce(z, each, temperature=0.2) for each in ids]).mean())


def test_positives_per_anchor_are_counted() -> None:
    z, ids = embeddings(6, 4, 0), torch.tensor([0, 0, 0, 1, 1, 2])
    expected = (3 * 5 + 2 * 3 + 1) / 6
    assert with_positives(z, ids, temperature=0.2).num_positives.item() == pytest.approx(expected)


def test_one_cluster_gives_the_mean_normalizer_less_the_mean_similarity() -> None:
    z = embeddings(6, 4, 0)
    flat = z.flatten(0, 1).double()
    logits = flat @ flat.T / 0.2
    off = ~torch.eye(12, dtype=torch.bool)
    normalizers = logits.masked_fill(~off, -torch.inf).logsumexp(1)
    expected = (normalizers - logits.masked_fill(~off, 0).sum(1) / 11).mean()
    assert cl_infonce(z, torch.zeros(6, dtype=torch.int64), temperature=0.2).item() == pytest.approx(expected.item())


def test_a_batch_of_one_image_has_nothing_to_repel() -> None:
    assert cl_infonce(embeddings(1, 4, 0), torch.tensor([3]), temperature=0.2).item() == pytest.approx(0, abs=1e-6)
    z = embeddings(1, 4, 0, views=1).requires_grad_()
    loss = cl_infonce(z, torch.tensor([3]), temperature=0.2)
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_half_precision_embeddings_are_contrasted_in_float32() -> None:
    z, ids = embeddings(16, 8, 0).bfloat16(), torch.arange(16) % 4
    with torch.autocast("cpu", torch.bfloat16):
        loss = cl_infonce(z, ids, temperature=0.01)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cl_infonce(z.float(), ids, temperature=0.01))


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 10), st.sampled_from([0.05, 0.2, 1.0]), st.integers(0, 1000))
def test_pairs_equal_the_papers_equation(batch: int, temperature: float, seed: int) -> None:
    x, y = embeddings(batch, 4, seed)
    mine = [each.clone().requires_grad_() for each in (x, y)]
    loss = pair_sampled_cl_infonce(*mine, temperature=temperature)
    loss.backward()
    yours = [each.double().requires_grad_() for each in (x, y)]
    scores = (yours[0] @ yours[1].T / temperature).exp()
    reference = -(scores.diagonal() / scores.mean(dim=1)).log().mean()
    reference.backward()
    assert loss.item() == pytest.approx(reference.item(), rel=1e-4, abs=1e-5)
    assert -loss.item() <= math.log(batch) + 1e-5
    for one, other in zip(mine, yours, strict=True):
        torch.testing.assert_close(one.grad.double(), other.grad, rtol=1e-3, atol=1e-5)


def test_pairs_approach_the_divergence_from_below() -> None:
    """X and Y are Z itself, so that the divergence is H(Z), and f is free to be any function of the pair."""
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.tensor([0.4, 0.3, 0.2, 0.1])
    entropy = -(probabilities * probabilities.log()).sum().item()
    table = torch.nn.Parameter(torch.ones(4, 16) + 0.01 * torch.randn(4, 16, generator=generator))
    optimizer = torch.optim.Adam([table], lr=0.05)
    estimates = []
    for _ in range(400):
        z = torch.multinomial(probabilities, 512, replacement=True, generator=generator)
        rows = F.normalize(table, dim=1)
        loss = pair_sampled_cl_infonce(rows[z], rows[z], temperature=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        estimates.append(-loss.item())
    assert estimates[0] < 0.9 * entropy
    assert np.mean(estimates[-50:]) == pytest.approx(entropy, rel=0.02)
    # The sampling error of a batch of 512 is that of its own entropy.
    assert max(estimates[-50:]) < entropy + 0.1


def test_queries_against_a_queue_equal_cross_entropy() -> None:
    """MoCo's loss as its authors write it: the positive logit first, then those of the queue."""
    q, k, queue = (embeddings(n, 8, n, 1)[0] for n in (6, 6 + 1, 30))
    k = k[:6]
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1) / 0.2
    expected = F.cross_entropy(logits, torch.zeros(6, dtype=torch.int64))
    for negatives in ([queue], [queue[:7], queue[7:]]):
        torch.testing.assert_close(instance_contrast(q, k, negatives, temperature=0.2).loss, expected)


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
