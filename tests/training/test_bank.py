import numpy as np
import torch
from torch.nn import functional as F

from clray.training.bank import EmbeddingBank

CPU = torch.device("cpu")


def bank(rank: int = 0, world_size: int = 1, momentum: float = 0.0) -> EmbeddingBank:
    return EmbeddingBank(np.arange(rank, 7, world_size), 4, CPU, momentum=momentum)


def test_a_bank_holds_the_last_embedding_of_each_sample() -> None:
    held, z = bank(), F.normalize(torch.randn(7, 4), dim=1)
    held.update(torch.arange(7), torch.randn(7, 4))
    held.update(torch.arange(7).flip(0), z.flip(0))
    np.testing.assert_allclose(held.unit_vectors().numpy(), z.numpy(), atol=2e-3)


def test_momentum_keeps_a_share_of_the_old_but_not_of_nothing() -> None:
    held = bank(momentum=0.75)
    held.update(torch.tensor([2]), torch.tensor([[1.0, 0, 0, 0]]))
    torch.testing.assert_close(held.vectors[2].float(), torch.tensor([1.0, 0, 0, 0]))
    held.update(torch.tensor([2]), torch.tensor([[0.0, 1, 0, 0]]))
    torch.testing.assert_close(held.vectors[2].float(), torch.tensor([0.75, 0.25, 0, 0]))
    assert list(held.unseen()) == [0, 1, 3, 4, 5, 6]


def test_workers_hold_their_own_samples_and_take_them_from_the_bank_of_all() -> None:
    z = F.normalize(torch.randn(7, 4), dim=1)
    parts, whole = [bank(rank, 3) for rank in range(3)], bank()
    for each in (*parts, whole):
        each.update(torch.arange(6), z[:6])  # every worker is shown all, and takes its own
    assert [list(each.unseen()) for each in parts] == [[6], [], []]
    for rank, each in enumerate(parts):
        for state in (whole.state_dict(), each.state_dict()):
            other = bank(rank, 3)
            other.load_rows(state)
            assert torch.equal(other.vectors, whole.vectors[rank::3])
            assert list(other.unseen()) == list(each.unseen())
