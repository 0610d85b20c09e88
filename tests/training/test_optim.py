import pytest
import torch

from clray.config.sections import TrainConfig
from clray.training.optim import build_optimizer, build_schedule


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_learning_rate_warms_up_and_falls_to_zero(optimizer: str) -> None:
    config = TrainConfig(optimizer=optimizer, num_epochs=10, warmup_epochs=2, learning_rate=0.1)
    chosen = build_optimizer(torch.nn.Linear(2, 2), config)
    schedule = build_schedule(chosen, config, steps_per_epoch=5)
    rates = []
    for _ in range(50):
        rates.append(chosen.param_groups[0]["lr"])
        chosen.step()
        schedule.step()
    assert rates[:10] == pytest.approx([0.01 * step for step in range(1, 11)])
    assert max(rates) == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001
