"""Layer-wise adaptive rates, for large batches."""

from collections.abc import Callable, Iterable
from itertools import compress
from typing import Any

import torch
from torch import Tensor, nn


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step in each weight is scaled by |w| / |gradient + decay w|.

    Biases and norm parameters, which have one dimension, take the plain step without decay.

    Source: You et al., arXiv 1708.03888, equation 6, with the exclusions of SimCLR (arXiv 2002.05709, appendix B.1).
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        *,
        momentum: float,
        weight_decay: float,
        trust_coefficient: float = 1e-3,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust_coefficient}
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter that has a gradient."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None]
            if parameters:
                self._step(parameters, group)
        return loss

    def _step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        updates = [each.grad for each in parameters if each.grad is not None]
        is_weight = [each.ndim > 1 for each in parameters]
        weights, gradients = list(compress(parameters, is_weight)), list(compress(updates, is_weight))
        if weights:
            scaled = iter(_scaled(weights, gradients, decay=group["weight_decay"], trust=group["trust"]))
            updates = [next(scaled) if of_weight else each for each, of_weight in zip(updates, is_weight, strict=True)]
        buffers = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            buffers.append(state["momentum_buffer"])
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(parameters, buffers, alpha=-group["lr"])


def _scaled(weights: list[Tensor], gradients: list[Tensor], *, decay: float, trust: float) -> list[Tensor]:
    """The gradients with decay, each times trust * |w| / |gradient + decay w|, in a few calls for all of them."""
    updates = torch._foreach_add(gradients, weights, alpha=decay)
    sizes, norms = (torch.stack(torch._foreach_norm(each)) for each in (weights, updates))
    # Where either is 0 there is nothing to adapt to.
    ratios = torch.where((sizes > 0) & (norms > 0), trust * sizes / norms, torch.ones_like(sizes))
    torch._foreach_mul_(updates, ratios.unbind())
    return list(updates)
