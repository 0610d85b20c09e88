import pytest
import torch
from torch import nn

from clray.config.sections import EncoderConfig, TrainConfig
from clray.model.encoder import build_encoder
from clray.training.optim import build_optimizer, build_schedule, forget, parameter_groups


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


def test_a_share_of_the_steps_warms_the_learning_rate_up_whatever_their_number() -> None:
    for num_epochs in (6, 10):
        by_epochs = TrainConfig(optimizer="sgd", num_epochs=num_epochs, warmup_epochs=num_epochs // 2)
        by_share = TrainConfig(optimizer="sgd", num_epochs=num_epochs, learning_rate_warmup_fraction=0.5)
        rates = []
        for config in (by_epochs, by_share):
            chosen = build_optimizer(torch.nn.Linear(2, 2), config)
            schedule = build_schedule(chosen, config, steps_per_epoch=5)
            rates.append([])
            for _ in range(5 * num_epochs):
                rates[-1].append(chosen.param_groups[0]["lr"])
                chosen.step()
                schedule.step()
        assert rates[0] == rates[1]


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_has_the_momentum_of_the_config(nesterov: bool) -> None:
    torch.manual_seed(0)
    ours, theirs = torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)
    theirs.load_state_dict(ours.state_dict())
    config = TrainConfig(optimizer="sgd", learning_rate=0.1, momentum=0.95, weight_decay=0, nesterov=nesterov)
    chosen = build_optimizer(ours, config)
    velocity = [torch.zeros_like(each) for each in theirs.parameters()]
    for step in range(1, 4):
        for own, other, moved in zip(ours.parameters(), theirs.parameters(), velocity, strict=True):
            own.grad = torch.full_like(own, step)
            moved.mul_(0.95).add_(step)
            with torch.no_grad():
                other -= 0.1 * (step + 0.95 * moved if nesterov else moved)
        chosen.step()
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_lars_leaves_biases_and_norms_of_a_model_out_of_adaptation_and_decay() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    before = {name: each.detach().clone() for name, each in model.named_parameters()}
    chosen = build_optimizer(model, TrainConfig(optimizer="lars", learning_rate=0.1, weight_decay=0.5, momentum=0))
    for each in model.parameters():
        each.grad = torch.ones_like(each)
    chosen.step()
    for name, each in model.named_parameters():
        is_plain = torch.allclose(each, before[name] - 0.1)
        assert is_plain == (name not in ("0.weight", "3.weight")), name


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


VIT_START = ("class_token", "conv_proj", "encoder.pos", "cls_token", "reg_token", "pos_embed", "patch_embed")


def rates_of(encoder: dict, train: dict | None = None, name: str = "small_cnn") -> dict[str, tuple[float, float]]:
    """Learning rate and decay of each parameter of a model."""
    settings = EncoderConfig.model_validate({"name": name, **encoder})
    model = nn.ModuleDict({"encoder": build_encoder(settings, 3)[0], "head": nn.Linear(2, 2)})
    groups = parameter_groups(model, TrainConfig(learning_rate=1.0, weight_decay=0.5, **(train or {})), settings)
    found = {id(each): (group["lr"], group["weight_decay"]) for group in groups for each in group["params"]}
    assert len(found) == len(list(model.parameters())) == sum(len(group["params"]) for group in groups)
    return {name: found[id(each)] for name, each in model.named_parameters()}


def test_without_settings_of_the_encoder_there_is_one_group() -> None:
    model = nn.ModuleDict({"encoder": nn.Linear(3, 3), "head": nn.Linear(2, 2)})
    (group,) = parameter_groups(model, TrainConfig(), EncoderConfig())
    assert group["params"] == list(model.parameters())


@pytest.mark.parametrize(
    ("weights", "decay_biases", "decays"),
    [(None, None, True), ("w.pt", None, False), ("w.pt", True, True), (None, False, False)],
)
def test_biases_and_norms_decay_where_weights_are_random_or_the_config_says_so(
    weights: str | None, decay_biases: bool | None, decays: bool
) -> None:
    found = rates_of({"weights": weights}, {"decay_biases": decay_biases})
    for name, (_, decay) in found.items():
        is_matrix = name in ("encoder.0.weight", "encoder.4.weight", "encoder.8.weight", "head.weight")
        assert decay == (0.5 if is_matrix or decays else 0), name


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("small_cnn", (("0.", "1."), ("4.", "5."), ("8.", "9."))),
        ("resnet18", (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))),
        ("vit_s16", (VIT_START, *((f"encoder.layers.encoder_layer_{i}.",) for i in range(12)))),
        ("timm/test_vit", (VIT_START, *((f"blocks.{i}.",) for i in range(6)))),
    ],
)  # fmt: skip
def test_the_rate_falls_from_layer_to_layer(name: str, layers: tuple[tuple[str, ...], ...]) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    found = rates_of({"layer_decay": 0.5, "learning_rate_factor": 0.1}, name=name)
    assert found.pop("head.weight")[0] == found.pop("head.bias")[0] == 1
    for parameter, (rate, _) in found.items():
        own = [i for i, starts in enumerate(layers) if parameter.removeprefix("encoder.").startswith(starts)]
        layer = own[0] if own else len(layers) - 1  # the norm behind the last block
        assert rate == pytest.approx(0.1 * 0.5 ** (len(layers) - layer)), parameter
