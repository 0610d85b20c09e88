import torch
from torch import Tensor

from clray.training.lars import LARS


def test_a_weight_moves_by_the_same_share_whatever_the_scale_of_its_gradient() -> None:
    moved = []
    for scale in (1.0, 1000.0):
        weight = torch.nn.Parameter(torch.ones(3, 4))
        optimizer = LARS([weight], 0.5, momentum=0.0, weight_decay=0.0)
        weight.grad = torch.full((3, 4), scale)
        optimizer.step()
        moved.append((1 - weight.detach()).norm() / 12**0.5)
    torch.testing.assert_close(moved[0], moved[1])
    torch.testing.assert_close(moved[0], torch.tensor(0.5 * 1e-3))


def test_biases_take_the_plain_step_without_decay() -> None:
    bias = torch.nn.Parameter(torch.ones(4))
    optimizer = LARS([bias], 0.1, momentum=0.0, weight_decay=10.0)
    bias.grad = torch.full((4,), 2.0)
    optimizer.step()
    torch.testing.assert_close(bias.detach(), torch.full((4,), 0.8))


def test_momentum_matches_sgd_where_nothing_is_adapted() -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(4)) for _ in range(2))
    pairs = (
        (ours, LARS([ours], 0.1, momentum=0.9, weight_decay=0.0)),
        (theirs, torch.optim.SGD([theirs], 0.1, momentum=0.9)),
    )
    for step in range(5):
        for parameter, optimizer in pairs:
            parameter.grad = torch.full((4,), float(step))
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_many_parameters_take_the_steps_of_the_formula_one_by_one() -> None:
    generator, rate, momentum, decay = torch.Generator().manual_seed(0), 0.3, 0.9, 1e-2
    shapes = ((5, 4), (4,), (3, 2, 3, 3), (1,), (6, 5), (2, 2))
    ours = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    with torch.no_grad():
        ours[-1].zero_()  # adapts to nothing
    expected, buffers = [each.detach().clone() for each in ours], [torch.zeros(shape) for shape in shapes]
    optimizer = LARS(ours, rate, momentum=momentum, weight_decay=decay)
    for step in range(20):
        for at, parameter in enumerate(ours):
            # One has no gradient for a while, as a frozen encoder's.
            parameter.grad = None if at == 4 and step < 3 else torch.randn(shapes[at], generator=generator)
            if parameter.grad is not None:
                update = _update(expected[at], parameter.grad, decay)
                buffers[at] = momentum * buffers[at] + update
                expected[at] = expected[at] - rate * buffers[at]
        optimizer.step()
    torch.testing.assert_close([each.detach() for each in ours], expected, rtol=0, atol=1e-6)


def _update(weight: Tensor, gradient: Tensor, decay: float) -> Tensor:
    if weight.ndim == 1:
        return gradient
    update = gradient + decay * weight
    is_adapted = weight.norm() > 0 and update.norm() > 0
    return update * (1e-3 * weight.norm() / update.norm()) if is_adapted else update
