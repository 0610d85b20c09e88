import pytest
import torch

from clray.config.sections import TrainConfig
from clray.training.optim import build_optimizer, build_schedule, forget


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


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lars"])
def test_a_parameter_drawn_anew_is_stepped_as_if_it_were_the_first_time(optimizer: str) -> None:
    torch.manual_seed(0)
    config = TrainConfig(optimizer=optimizer, learning_rate=0.1)
    drawn, gradients = torch.randn(3, 4), torch.randn(3, 3, 4)
    fresh, old, other = (torch.nn.Parameter(drawn.clone()) for _ in range(3))
    chosen = build_optimizer(torch.nn.ParameterList([old, other]), config)
    for gradient in gradients[:2]:
        old.grad, other.grad = gradient.clone(), gradient.clone()
        chosen.step()
    with torch.no_grad():
        old.copy_(drawn)
    forget(chosen, [old])
    assert old.grad is None
    from_scratch = build_optimizer(torch.nn.ParameterList([fresh]), config)
    with_memory = other.detach().clone()
    for parameter in (old, other, fresh):
        parameter.grad = gradients[2].clone()
    chosen.step()
    from_scratch.step()
    torch.testing.assert_close(old, fresh)
    assert not torch.allclose(other - with_memory, old - drawn, rtol=0.05)
