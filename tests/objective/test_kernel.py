"""CCL-K against its formula written out, one pair at a time, and in its limits."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from clray.objective.contrastive import cl_infonce
from clray.objective.kernel import Form, Kernel, ccl_k, conditional_weights, kernel_matrix

FORMS: tuple[Form, ...] = ("log-of-mean", "mean-of-logs")
KERNELS = ("cosine", "rbf", "laplacian", "linear", "polynomial")
T = 0.3


def embeddings(batch: int, seed: int = 0, views: int = 2) -> torch.Tensor:
    z = torch.randn(views, batch, 5, generator=torch.Generator().manual_seed(seed))
    return F.normalize(z, dim=-1)


def written_out(kernel: Kernel, u: np.ndarray, v: np.ndarray) -> float:
    distance = float(np.sqrt(((u - v) ** 2).sum()))
    return {
        "cosine": float(u @ v) / max(np.linalg.norm(u) * np.linalg.norm(v), 1e-300),
        "rbf": np.exp(-(distance**2) / (2 * kernel.bandwidth**2)),
        "laplacian": np.exp(-distance / kernel.bandwidth),
        "linear": float(u @ v),
        "polynomial": float(u @ v) ** 3,
    }[kernel.name]


def weights_of(values: np.ndarray, kernel: Kernel) -> np.ndarray:
    matrix = np.array([[written_out(kernel, u, v) for v in values] for u in values])
    matrix /= np.mean(np.diag(matrix))
    return np.maximum(matrix @ np.linalg.inv(matrix + kernel.ridge * np.eye(len(matrix))), 0)


def reference(
    z: torch.Tensor, weights: np.ndarray, form: Form, anchors: torch.Tensor | None = None
) -> torch.Tensor:  # fmt: skip
    """The mean over anchors, differentiable, in float64; `anchors` are small views, which are no candidates."""
    candidates = [(i, view[i]) for view in z for i in range(len(view))]
    chosen = candidates if anchors is None else [(i, view[i]) for view in anchors for i in range(len(view))]
    losses = []
    for number, (i, anchor) in enumerate(chosen):
        others = [each for place, each in enumerate(candidates) if anchors is not None or place != number]
        ratios = torch.stack([(anchor @ other / T).exp() for _, other in others])
        ratios = ratios / ratios.sum()
        w = torch.tensor([weights[i, j] for j, _ in others])
        w = w / w.sum()
        losses.append(-(w * ratios).sum().log() if form == "log-of-mean" else -(w * ratios.log()).sum())
    return torch.stack(losses).mean()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("is_small", [False, True])
def test_is_the_formula_and_its_gradient(form: Form, name: str, is_small: bool) -> None:
    values = torch.randn(30, 3, generator=torch.Generator().manual_seed(1))
    images, kernel = torch.tensor([4, 9, 2, 25, 17, 11, 3]), Kernel(name, 0.7, 0.05)
    z, small = embeddings(7).requires_grad_(), embeddings(7, seed=3, views=3) if is_small else None

    loss = ccl_k(z, images, values, kernel=kernel, temperature=T, form=form, small=small).loss
    exact = z.detach().double().requires_grad_()
    weights = weights_of(values[images].double().numpy(), kernel)
    expected = reference(exact, weights, form, None if small is None else small.double())

    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-5)
    (gradient,), (of_expected,) = torch.autograd.grad(loss, z), torch.autograd.grad(expected, exact)
    torch.testing.assert_close(gradient.double(), of_expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ridge", [1e-6, 0.01, 10.0])
def test_a_kernel_of_clusters_gives_cl_infonce_and_supcons_l_in_at_every_ridge(ridge: float) -> None:
    ids = torch.tensor([0, 1, 1, 2, 2, 2, 3, 0])
    z, one_hot, images = embeddings(8), F.one_hot(ids).float(), torch.arange(8)
    kernel = Kernel("linear", ridge=ridge)

    clusters = cl_infonce(z, ids, temperature=T)
    found = ccl_k(z, images, one_hot, kernel=kernel, temperature=T, form="mean-of-logs")
    torch.testing.assert_close(found.loss, clusters.loss)
    torch.testing.assert_close(found.num_positives, clusters.num_positives)

    flat, is_same = z.flatten(0, 1), ids.repeat(2)[:, None] == ids.repeat(2)
    is_other = ~torch.eye(16, dtype=torch.bool)
    ratios = (flat @ flat.T / T).masked_fill(~is_other, -torch.inf).softmax(dim=1)
    positives = (is_same & is_other).float()
    l_in = -((ratios * positives).sum(dim=1) / positives.sum(dim=1)).log().mean()
    torch.testing.assert_close(ccl_k(z, images, one_hot, kernel=kernel, temperature=T).loss, l_in)


@pytest.mark.parametrize("form", FORMS)
def test_without_a_ridge_values_that_differ_give_infonce(form: Form) -> None:
    z, images = embeddings(9), torch.arange(9)
    values = torch.randn(9, 2, generator=torch.Generator().manual_seed(2)) * 3
    found = ccl_k(z, images, values, kernel=Kernel("rbf", ridge=1e-6), temperature=T, form=form)
    torch.testing.assert_close(found.loss, cl_infonce(z, images, temperature=T).loss, rtol=1e-3, atol=1e-3)
    assert found.num_positives.item() == pytest.approx(1, abs=1e-3)


def test_with_a_large_ridge_weights_are_those_of_the_kernel() -> None:
    values = torch.randn(12, 2, generator=torch.Generator().manual_seed(2))
    weights = conditional_weights(values, slice(0, 12), Kernel("rbf", ridge=1e6))
    torch.testing.assert_close(weights, kernel_matrix(values, Kernel("rbf")).float(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["cosine", "linear", "polynomial"])
def test_the_scale_of_the_values_does_not_matter(name: str) -> None:
    values = torch.randn(12, 3, generator=torch.Generator().manual_seed(4))
    one, other = (conditional_weights(values * scale, slice(0, 12), Kernel(name)) for scale in (1.0, 1e-4))
    torch.testing.assert_close(one, other)


def test_weights_are_those_of_float64_where_float32_would_be_wrong() -> None:
    values = np.random.default_rng(0).normal(size=(150, 1)).astype(np.float32)
    kernel = Kernel("rbf", ridge=1e-4)
    exact = weights_of(values.astype(np.float64), kernel)
    found = conditional_weights(torch.tensor(values), slice(50, 100), kernel)
    expected = exact[50:100] / exact[50:100].max(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_an_image_of_which_the_values_tell_nothing_has_its_own_views_alone(form: Form) -> None:
    values = torch.eye(4)
    values[2] = 0
    z, images = embeddings(4).requires_grad_(), torch.arange(4)
    loss = ccl_k(z, images, values, kernel=Kernel("cosine"), temperature=T, form=form).loss
    torch.testing.assert_close(loss, cl_infonce(z, images, temperature=T).loss)
    (gradient,) = torch.autograd.grad(loss, z)
    assert torch.isfinite(gradient).all()


def test_the_mean_of_logs_is_no_less_than_the_log_of_the_mean() -> None:
    values = torch.randn(10, 3, generator=torch.Generator().manual_seed(5))
    of_form = [
        ccl_k(embeddings(10), torch.arange(10), values, kernel=Kernel(), temperature=T, form=form).loss
        for form in FORMS
    ]
    assert of_form[0] <= of_form[1]


def test_the_base_temperature_scales_the_loss() -> None:
    z, values, images = embeddings(6), torch.randn(6, 3), torch.arange(6)
    plain, based = (
        ccl_k(z, images, values, kernel=Kernel(), temperature=T, base_temperature=base).loss for base in (None, 0.1)
    )
    torch.testing.assert_close(based, plain * (T / 0.1))


def test_a_temperature_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature"):
        ccl_k(embeddings(3), torch.arange(3), torch.eye(3), kernel=Kernel(), temperature=0.0)
