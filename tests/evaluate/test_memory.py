"""Many samples are solved without a second copy of them."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from clray.evaluate import logistic, principal_axes
from clray.evaluate.logistic import Classes, minimize, with_ones
from clray.evaluate.principal_axes import to_principal_axes


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that an operation makes, but for what lies in the samples' own memory."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.own, self.numbers = x.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor) and each.untyped_storage().data_ptr() != self.own:
                self.numbers = max(self.numbers, each.untyped_storage().nbytes() // each.element_size())
        return made


def test_many_samples_are_turned_and_solved_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(principal_axes, "PIECE_ROWS", 100)
    monkeypatch.setattr(logistic, "MAX_LOGITS", 2000)
    x = with_ones(torch.randn(1, 2000, 20, generator=torch.Generator().manual_seed(0)))
    targets = Classes((x[:, :, 0] > 0).long(), 2)
    with Largest(x) as turned:
        axes = to_principal_axes(x)
    with Largest(x) as solved:
        minimize(axes.x, targets, torch.tensor([0.1]))
    assert turned.numbers <= 2000
    assert solved.numbers <= 2000
