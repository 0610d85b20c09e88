"""Weights that exist, as files of every kind that hold them."""

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from clray.config import Config, parse_config
from clray.errors import UserError
from clray.model.encoder import ContrastiveModel, build_encoder
from clray.model.pixels import backbone_of
from clray.model.weights import Match, load_weights, resolved_encoder
from clray.training.export import export_encoder

SIZE = 8


def config_of(encoder: dict, **sections: dict) -> Config:
    return parse_config({"encoder": {"name": "small_cnn", "width": 4, **encoder}, **sections})


def plain(seed: int = 1, channels: int = 3, width: int = 4) -> nn.Module:
    """An encoder without normalisation, whose batch norms have seen something."""
    torch.manual_seed(seed)
    encoder, _ = build_encoder(config_of({"width": width}).encoder, channels)
    encoder.train()(torch.rand(16, channels, SIZE, SIZE))
    return encoder.eval()


def loaded(channels: int = 3, **encoder: object) -> tuple[nn.Module, Match]:
    settings = resolved_encoder(config_of(encoder))
    torch.manual_seed(2)
    built, _ = build_encoder(settings, channels)
    match = load_weights(built, settings)
    assert match is not None
    return built.eval(), match


def images(channels: int = 3) -> Tensor:
    return torch.rand(5, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def assert_embeds_alike(one: nn.Module, other: nn.Module, pixels: Tensor) -> None:
    with torch.no_grad():
        torch.testing.assert_close(one(pixels), other(pixels), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("ending", ["safetensors", "pt", "pth", "bin", "ckpt"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone.", "encoder.", "model.encoder.0."])
def test_weights_are_found_behind_any_prefix(tmp_path: Path, ending: str, prefix: str) -> None:
    source = plain()
    state = {f"{prefix}{name}": value for name, value in source.state_dict().items()}
    extra = {"fc.weight": torch.zeros(10, 16), f"{prefix}fc.bias": torch.zeros(10)}
    path = tmp_path / f"w.{ending}"
    if ending == "safetensors":
        save_file({**state, **extra}, path)
    else:
        torch.save({"epoch": 3, "state_dict": {**state, **extra}} if prefix else {**state, **extra}, path)
    encoder, match = loaded(weights=str(path))
    assert_embeds_alike(encoder, source, images())
    assert (match.taken, match.new, set(match.left)) == (15, (), set(extra))
    assert "15 of 15 tensors" in str(match)


def test_what_is_new_and_what_is_left_out_is_named(tmp_path: Path) -> None:
    """Weights of a ResNet with the stem for large images, in one with the stem for small ones."""
    large, _ = build_encoder(config_of({"name": "resnet18", "small_image_stem": False}).encoder, 3)
    torch.save({**large.state_dict(), "fc.bias": torch.zeros(3)}, tmp_path / "w.pt")
    encoder, match = loaded(name="resnet18", weights=str(tmp_path / "w.pt"))
    assert match.new == ("conv1.weight",)
    assert match.left == ("conv1.weight", "fc.bias")
    assert match.taken == sum("num_batches" not in name for name in large.state_dict()) - 1
    assert torch.equal(backbone_of(encoder).layer4[1].conv2.weight, large.layer4[1].conv2.weight)


def test_a_grey_image_is_one_of_three_equal_channels(tmp_path: Path) -> None:
    source = plain()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    encoder, _ = loaded(1, weights=str(tmp_path / "w.pt"), mean=[0.1, 0.2, 0.3], std=[0.5, 0.6, 0.7])
    grey = images(1)
    shifted = (grey.expand(-1, 3, -1, -1) - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.5, 0.6, 0.7]
    ).view(3, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(encoder(grey), source(shifted))


def test_weights_of_grey_images_give_the_same_for_grey_images_and_take_others(tmp_path: Path) -> None:
    source = plain(channels=1)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    encoder, match = loaded(1, weights=str(tmp_path / "w.pt"))
    assert match.new == ()
    assert_embeds_alike(encoder, source, images(1))
    encoder, _ = loaded(3, weights=str(tmp_path / "w.pt"))
    colour = images(3)
    with torch.no_grad():
        torch.testing.assert_close(encoder(colour), source(colour.mean(dim=1, keepdim=True)))


def test_images_are_scaled_to_the_size_of_the_weights(tmp_path: Path) -> None:
    source = plain()
    torch.save(source.state_dict(), tmp_path / "w.pt")
    encoder, _ = loaded(weights=str(tmp_path / "w.pt"), image_size=SIZE)
    large = images().repeat_interleave(4, 2).repeat_interleave(4, 3)
    with torch.no_grad():
        torch.testing.assert_close(encoder(large), encoder(images()), rtol=0.1, atol=0.05)
        assert encoder(large[:, :, :20]).shape == (5, 16)


class Planted:
    """Would write a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


BAD = ("module", "planted", "old", "script", "cut", "text", "list", "empty")


def bad_files(folder: Path) -> dict[str, Path]:
    paths = {name: folder / f"{name}.pt" for name in BAD}
    torch.save(plain(), paths["module"])
    torch.save({"state_dict": Planted(folder / "ran")}, paths["planted"])
    paths["old"].write_bytes(pickle.dumps(Planted(folder / "ran")))
    torch.save(plain().state_dict(), paths["cut"])
    paths["cut"].write_bytes(paths["cut"].read_bytes()[:-3000])
    paths["text"].write_text("no weights", encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(nn.Linear(2, 2)).save(paths["script"])
    torch.save([1, 2], paths["list"])
    torch.save({}, paths["empty"])
    paths["cut_safe"] = folder / "cut.safetensors"
    save_file(plain().state_dict(), paths["cut_safe"])
    paths["cut_safe"].write_bytes(paths["cut_safe"].read_bytes()[:-30])
    return paths


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("module", r"pickle of Python objects \(torch.*which would run code.*convert it: torch\.save\(torch\.load"),
        ("planted", r"pickle of Python objects.*convert it"),
        ("old", r"pickle of Python objects.*convert it"),
        ("script", r"a TorchScript program.*convert it"),
        ("cut", "cannot be read"),
        ("cut_safe", "cannot be read"),
        ("text", "cannot be read"),
        ("list", r"no tensors by name; save a module's state_dict\(\)"),
        ("empty", r"no tensors by name"),
    ],
)
def test_a_file_that_holds_no_weights_is_refused_and_nothing_of_it_runs(tmp_path: Path, kind: str, reason: str) -> None:
    path = bad_files(tmp_path)[kind]
    with pytest.raises(UserError, match=reason) as refused:
        loaded(weights=str(path))
    assert str(path) in str(refused.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "other",
    [
        {"name": "resnet50"},
        {"name": "resnet18"},
        {"name": "resnet34"},
        {"width": 8},
        {"name": "vit_s16"},
    ],
)
def test_weights_of_another_architecture_are_refused(tmp_path: Path, other: dict) -> None:
    """Also where much fits: a ResNet-18 is the start of a ResNet-34."""
    source, _ = build_encoder(config_of(other).encoder, 3)
    torch.save(source.state_dict(), tmp_path / "w.pt")
    for own in ({}, {"name": "resnet34"}, {"name": "resnet18"}):
        if own == other:
            continue
        with pytest.raises(
            UserError, match=r"another architecture than encoder\.name=.*tensors fit.*Set encoder\.name"
        ):
            loaded(weights=str(tmp_path / "w.pt"), **own)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    state = plain().state_dict()
    state["0.weight"][0] = torch.nan
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"NaN or infinity in 0\.weight"):
        loaded(weights=str(tmp_path / "w.pt"))


def test_places_without_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text("", encoding="utf-8")
    for place, reason in ((tmp_path / "none.pt", "does not exist"), (tmp_path / "w.txt", r"ends in '\.txt'"),
                          (tmp_path, "holds none of checkpoint.pt")):  # fmt: skip
        with pytest.raises(UserError, match=reason):
            loaded(weights=str(place))


def as_checkpoint(config: Config, model: ContrastiveModel) -> dict:
    return {
        "config": config.model_dump(mode="json"),
        "model": model.state_dict(),
        "num_channels": 3,
        "num_clusters": [10],
        "cluster_ids": torch.zeros(1, 4, dtype=torch.int32),
        "epoch": 1,
    }


@pytest.mark.parametrize("normalised", [False, True])
def test_a_run_and_its_export_are_weights_with_their_pixels(tmp_path: Path, normalised: bool) -> None:
    own = {"mean": [0.4], "std": [0.3], "image_size": 12} if normalised else {}
    config = config_of(own, train={"precision": "float32"}, data={"image_size": SIZE})
    model = ContrastiveModel(config, 3, 10).eval()
    checkpoint = as_checkpoint(config, model)
    metadata = export_encoder(checkpoint, config, tmp_path / "encoder.safetensors")
    assert ("normalised by" in metadata["pixels"]) == normalised
    (tmp_path / "run").mkdir()
    torch.save(checkpoint, tmp_path / "run" / "checkpoint.pt")
    for place in (tmp_path / "encoder.safetensors", tmp_path / "run", tmp_path / "run" / "checkpoint.pt"):
        encoder, match = loaded(weights=str(place))
        assert match.new == ()
        assert_embeds_alike(encoder, model.encoder, images())


def test_a_folder_as_on_the_hub_says_what_its_pixels_are(tmp_path: Path) -> None:
    save_file(plain().state_dict(), tmp_path / "model.safetensors")
    published = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 16, 16]}
    described = {"architecture": "anything", "pretrained_cfg": published}
    (tmp_path / "config.json").write_text(json.dumps(described), encoding="utf-8")
    found = resolved_encoder(config_of({"weights": str(tmp_path)}))
    assert (found.mean, found.std, found.image_size) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), 16)
    own = resolved_encoder(config_of({"weights": str(tmp_path), "mean": [0.7], "std": [1]}, data={"image_size": 32}))
    assert (own.mean, own.std, own.image_size) == ((0.7,), (1,), 32)
    assert loaded(weights=str(tmp_path))[1].new == ()
    (tmp_path / "config.json").write_text("[1", encoding="utf-8")
    with pytest.raises(UserError, match=r"config\.json cannot be read"):
        loaded(weights=str(tmp_path))


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        ({"weights": "pretrained"}, r"encoder\.weights=pretrained are those of timm; set encoder\.name=timm/MODEL"),
        ({"keep_norm_statistics": True}, r"encoder\.keep_norm_statistics keeps those of the weights"),
        ({"name": "timm/../etc"}, r"encoder\.name must be timm/ and the name of a model"),
        ({"mean": [0.5]}, r"encoder\.mean and std belong together"),
        ({"mean": [0.5, 0.5], "std": [0.5, 0.5]}, r"encoder\.mean must hold one number, or one for each of 3"),
        ({"name": "vit_s16", "image_size": 40}, r"encoder\.image_size must be a multiple of 16"),
        ({"layer_decay": 1.5}, r"encoder\.layer_decay"),
    ],
)
def test_settings_that_make_no_sense_are_refused(encoder: dict, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        config_of(encoder)
