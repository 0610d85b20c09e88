import torch

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
