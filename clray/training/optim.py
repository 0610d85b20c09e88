"""Optimizer and learning-rate schedule."""

import math
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from clray.config.sections import EncoderConfig, TrainConfig
from clray.training.lars import LARS

ENCODER = "encoder."
"""Starts the names of the encoder's parameters in the model."""


def build_optimizer(
    model: nn.Module, config: TrainConfig, encoder: EncoderConfig | None = None
) -> torch.optim.Optimizer:
    """SGD with momentum, AdamW or LARS; the first two in one fused kernel.

    Args:
        encoder: its settings give parts of the model rates of their own.
    """
    groups = parameter_groups(model, config, encoder or EncoderConfig())
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    if config.optimizer == "lars":
        return LARS(groups, config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        groups,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=True,
    )


def parameter_groups(model: nn.Module, config: TrainConfig, encoder: EncoderConfig) -> list[dict[str, Any]]:
    """The model's parameters by learning rate and decay; one group where they all have the same.

    An encoder that starts frozen has groups of its own, as a fused kernel steps all of a group or none.
    """
    decays_all = encoder.weights is None if config.decay_biases is None else config.decay_biases
    factors = layer_factors(model, encoder)
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decays = decays_all or parameter.ndim > 1
        waits = encoder.frozen_epochs > 0 and name.startswith(ENCODER)
        groups.setdefault((factors.get(name, 1.0), decays, waits), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": config.learning_rate * factor,
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (factor, decays, _), parameters in groups.items()
    ]


def layer_factors(model: nn.Module, encoder: EncoderConfig) -> dict[str, float]:
    """Learning rate of each parameter of the encoder, as a multiple of that of the heads.

    The last of L layers has factor * decay, the first factor * decay^L, as in the code of BEiT (Bao et al., arXiv
    2106.08254). Each numbered module, such as `blocks.3` or `layer2`, is a layer; what stands between, and a numbered
    norm such as `bn1`, belongs to the layer before.
    """
    layers: dict[str, int] = {}
    layer, last = 0, None
    for name, parameter in model.named_parameters():
        if not name.startswith(ENCODER):
            continue
        block, is_within = _block_of(name.removeprefix(ENCODER))
        if block not in (None, last) and (is_within or parameter.ndim > 1):
            layer, last = layer + bool(layers), block
        layers[name] = layer
    rate, decay, num_layers = encoder.learning_rate_factor, encoder.layer_decay, layer + 1
    return {name: rate * decay ** (num_layers - layer if decay < 1 else 0) for name, layer in layers.items()}


def _block_of(name: str) -> tuple[str | None, bool]:
    """The path of the first numbered module that a parameter lies in, and whether in a module within that."""
    match = re.match(r"(?:.*?\.)??[^.]*\d(?=\.)", name)
    return (None, False) if match is None else (match[0], "." in name[match.end() + 1 :])


def build_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig, steps_per_epoch: int) -> LambdaLR:
    """Linear warm-up over `warmup_epochs` or a share of all steps, then cosine to zero; advances once per step."""
    num_steps = config.num_epochs * steps_per_epoch
    warmup = config.num_warmup_steps(num_steps, steps_per_epoch)
    total = max(num_steps, warmup + 1)

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
