"""Encoders of timm: the smallest of each family."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from clray.config import Config, parse_config
from clray.errors import UserError
from clray.model.encoder import build_encoder
from clray.model.timm_models import build_timm, pixel_settings
from clray.model.weights import load_weights, resolved_encoder

timm = pytest.importorskip("timm")


def config_of(name: str, data: dict | None = None, **encoder: object) -> Config:
    return parse_config({"encoder": {"name": f"timm/{name}", **encoder}, "data": data or {}})


@pytest.mark.parametrize("name", ["test_vit", "test_efficientnet", "test_convnext", "test_resnet", "test_mambaout"])
@pytest.mark.parametrize(("channels", "size"), [(3, 64), (1, 40)])
def test_a_model_gives_pooled_features_of_its_dimension(name: str, channels: int, size: int) -> None:
    settings = resolved_encoder(config_of(name))
    encoder, dim = build_encoder(settings, channels)
    published = pixel_settings(f"timm/{name}")
    assert (settings.mean, settings.std) == (published["mean"], published["std"])
    assert encoder.eval()(torch.rand(2, channels, size, size)).shape == (2, dim)
    with torch.device("meta"):
        build_encoder(settings, channels)


def test_features_are_those_of_timm_on_its_own_pixels() -> None:
    torch.manual_seed(0)
    encoder, _ = build_encoder(resolved_encoder(config_of("test_resnet")), 3)
    torch.manual_seed(0)
    own = timm.create_model("test_resnet", num_classes=0).eval()
    found = timm.data.resolve_model_data_config(own)
    images = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(found[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(images), own((images - mean) / std))


def test_the_size_is_that_of_the_config_or_the_data_or_the_weights(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), weights)
    given = {"weights": str(weights)}
    assert resolved_encoder(config_of("test_vit", **given)).image_size == 160
    assert resolved_encoder(config_of("test_vit", {"image_size": 64}, **given)).image_size == 64
    assert resolved_encoder(config_of("test_vit", {"image_size": 64}, image_size=96, **given)).image_size == 96
    # A convolutional network with random weights takes images as they are.
    assert resolved_encoder(config_of("test_resnet")).image_size == 0


def test_weights_of_a_vision_transformer_serve_another_image_size(tmp_path: Path) -> None:
    torch.manual_seed(1)
    save_file(timm.create_model("test_vit").state_dict(), tmp_path / "w.safetensors")
    settings = resolved_encoder(config_of("test_vit", weights=str(tmp_path / "w.safetensors"), image_size=64))
    encoder, _ = build_encoder(settings, 3)
    match = load_weights(encoder, settings)
    assert match is not None
    assert (match.new, set(match.left)) == ((), {"head.weight", "head.bias"})


def test_a_folder_of_another_model_is_refused_by_name(tmp_path: Path) -> None:
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "test_resnet"}), encoding="utf-8")
    with pytest.raises(UserError, match=r"holds weights of timm/test_resnet; set encoder\.name to it"):
        resolved_encoder(config_of("test_vit", weights=str(tmp_path)))


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "w.pt")
    settings = resolved_encoder(config_of("test_efficientnet", weights=str(tmp_path / "w.pt")))
    with pytest.raises(
        UserError, match=r"another architecture than encoder\.name=timm/test_efficientnet: .* tensors fit"
    ):
        load_weights(build_encoder(settings, 3)[0], settings)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("resnet81", r"timm .* has no such model; did you mean .*resnet"),
        ("resnet18.imagenet22k", r"no such weights; it has resnet18\.a1_in1k"),
        ("test_vit_relpos", r"cannot be built for encoder\.image_size=7 "),
    ],
)
def test_a_model_that_timm_cannot_build_is_refused(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        build_timm(f"timm/{name}", num_channels=3, image_size=7)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"timm cannot be imported.*pip install 'clray\[timm\]'"):
        resolved_encoder(config_of("test_vit"))


FETCH = """
import sys
from clray.config import parse_config
from clray.errors import UserError
from clray.model.encoder import build_encoder
from clray.model.weights import load_weights, resolved_encoder
for name in sys.argv[1:]:
    settings = resolved_encoder(parse_config({"encoder": {"name": name, "weights": "pretrained"}}))
    encoder, _ = build_encoder(settings, 3)
    try:
        print(load_weights(encoder, settings))
        print(sum(each.double().sum() for each in encoder.parameters()).item())
    except UserError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, float]]:
    """A server on loopback that holds one model as timm's hub does, and the sum of its parameters."""
    path = tmp_path_factory.mktemp("hub") / "model.safetensors"
    torch.manual_seed(1)
    save_file(timm.create_model("test_vit").state_dict(), path)
    content = path.read_bytes()

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_there = self.path == "/timm/test_vit.r160_in1k/resolve/main/model.safetensors"
            self.send_response(200 if is_there else 404)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(content) if is_there else 0))
            self.end_headers()
            if is_there and self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # the name that the server calls

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    expected = timm.create_model("test_vit", num_classes=0)
    state = {name: value for name, value in timm.models.load_state_dict(str(path)).items() if "head." not in name}
    expected.load_state_dict(state)
    yield f"http://127.0.0.1:{server.server_port}", sum(each.double().sum() for each in expected.parameters()).item()
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_pretrained_weights_come_from_the_hub_or_are_refused(hub: tuple[str, float], tmp_path: Path) -> None:
    endpoint, total = hub
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", FETCH, "timm/test_vit", "timm/test_resnet"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True)
    matched, found, refused = done.stdout.splitlines()
    assert "tensors of the encoder come from timm/test_vit on its hub" in matched
    assert float(found) == pytest.approx(total)
    assert "encoder.weights=pretrained: those of timm/test_resnet cannot be fetched" in refused
    assert "set encoder.weights to the file or folder" in refused
