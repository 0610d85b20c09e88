"""Commands over a checkpoint that somebody else may have made."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from clray.cli.app import app
from clray.cli.flags import with_flags
from clray.config import parse_config
from clray.errors import UserError
from clray.training.checkpoint import write_checkpoint
from clray.training.checkpoint_form import Checkpoint
from tests.training.test_checkpoint import CHECKPOINT

MODULE = """
from pathlib import Path
Path("{marker}").touch()
from clray.model.encoder import build_encoder
from clray.config.sections import EncoderConfig
def build(num_channels):
    return build_encoder(EncoderConfig(name="small_cnn", width=4), num_channels)
"""


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose own config allows and names a module; importing that leaves the file `ran`."""
    from clray.model.encoder import ContrastiveModel

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "planted.py").write_text(MODULE.format(marker=tmp_path / "ran"))
    tree: dict[str, Any] = {"encoder": {"name": "small_cnn", "width": 4}, "train": {"precision": "float32"}}
    config = parse_config(tree)
    model = ContrastiveModel(config, 1, 10)
    stored = config.model_dump(mode="json")
    stored["allow_user_modules"], stored["encoder"]["name"] = True, "planted:build"
    kept: Checkpoint = {**CHECKPOINT, "config": stored, "model": model.state_dict(), "num_clusters": [10]}
    return write_checkpoint(tmp_path / "run", kept)


COMMANDS = (("export", "{}", "-o", "e.safetensors"), ("evaluate", "{}"), ("embed", "{}", "-o", "h.npy"))


@pytest.mark.usefixtures("planted")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
@pytest.mark.parametrize("place", ["run", "run/checkpoint.pt"])
def test_a_checkpoint_cannot_have_its_own_modules_imported(
    tmp_path: Path, command: tuple[str, ...], place: str
) -> None:
    done = CliRunner().invoke(app, [each.format(place) for each in command])
    assert isinstance(done.exception, UserError)
    for part in (place, "'planted'", "with --set allow_user_modules=true"):
        assert part in with_flags(str(done.exception))
    assert not (tmp_path / "ran").exists()


def test_what_the_command_itself_allows_is_imported(planted: Path, tmp_path: Path) -> None:
    command = ["export", str(planted), "-o", "e.safetensors", "--set", "allow_user_modules=true"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0
    assert (tmp_path / "ran").exists()
    assert (tmp_path / "e.safetensors").exists()
