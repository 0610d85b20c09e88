"""Optimizer and learning-rate schedule."""

import math
from collections.abc import Iterable

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from clray.config.sections import TrainConfig
from clray.training.lars import LARS


def build_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, AdamW or LARS; the first two in one fused kernel."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
    if config.optimizer == "lars":
        return LARS(
            model.parameters(), config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
        )
    return torch.optim.SGD(
        model.parameters(),
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=True,
    )


def build_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, steps_per_epoch: int) -> LambdaLR:
    """Linear warm-up over `warmup_epochs`, then cosine to zero; advances once per step."""
    warmup = config.warmup_epochs * steps_per_epoch
    total = max(config.num_epochs * steps_per_epoch, warmup + 1)

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))

    return LambdaLR(optimizer, factor)


def forget(optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Leave nothing of what the optimizer knows of these parameters: moments, step counts and gathered gradients.

    Set to zero in place, which is how each optimizer starts: the fused kernels refuse a group of which some
    parameters have a state and others none.
    """
    for parameter in parameters:
        parameter.grad = None
        for value in optimizer.state.get(parameter, {}).values():
            if isinstance(value, torch.Tensor):
                value.zero_()
