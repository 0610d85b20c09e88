"""Samples in their principal axes: the same scores at the same norm, in fewer dimensions."""

import pytest
import torch

from clray.evaluate.logistic import Classes, minimize, with_ones
from clray.evaluate.principal_axes import to_principal_axes


def samples(num_rows: int, dim: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(2, dim, dim, generator=generator, dtype=torch.float64)
    x = torch.randn(2, num_rows, dim, generator=generator, dtype=torch.float64) @ mix + 3
    return with_ones(x)


@pytest.mark.parametrize(("num_rows", "dim"), [(40, 6), (12, 30), (30, 30)])
def test_weights_of_the_axes_give_the_same_scores_at_the_same_norm(num_rows: int, dim: int) -> None:
    x = samples(num_rows, dim)
    axes = to_principal_axes(x.clone())
    assert axes.x.shape[2] == min(num_rows, dim) + 1
    weights = torch.randn(2, 3, axes.x.shape[2], 4, dtype=torch.float64)
    if num_rows <= dim:
        weights[:, :, 0] = 0  # about their mean the samples have an axis less
    back = axes.back(weights)
    torch.testing.assert_close(x[:, None] @ back, axes.x[:, None] @ weights)
    torch.testing.assert_close(back[:, :, :-1].norm(dim=2), weights[:, :, :-1].norm(dim=2))
    gram = axes.x[..., :-1].mT @ axes.x[..., :-1]
    torch.testing.assert_close(gram, torch.diag_embed(gram.diagonal(dim1=1, dim2=2)), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(("num_rows", "dim"), [(40, 6), (12, 30)])
def test_the_minimum_in_the_axes_is_that_of_the_samples(num_rows: int, dim: int) -> None:
    x = samples(num_rows, dim)
    targets, l2 = Classes(torch.arange(2 * num_rows).view(2, -1) % 3, 3), torch.tensor([0.1, 1e-2]).double()
    axes = to_principal_axes(x.clone())
    found, expected = axes.back(minimize(axes.x, targets, l2)), minimize(x, targets, l2)
    torch.testing.assert_close(
        (x[:, None] @ found).softmax(3), (x[:, None] @ expected).softmax(3), atol=2e-3, rtol=0
    )  # fmt: skip


def test_rows_that_fill_up_a_smaller_set_change_none_of_its_axes() -> None:
    x = samples(12, 30)
    x[0, 9:] = 0
    filled, alone = to_principal_axes(x.clone()), to_principal_axes(x[:1, :9].clone())
    assert not filled.x[0, 9:].any()
    grams = [axes.x[0, :9, :-1] @ axes.x[0, :9, :-1].T for axes in (filled, alone)]
    torch.testing.assert_close(*grams)
