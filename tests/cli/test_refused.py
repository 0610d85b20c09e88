"""A command that is refused leaves nothing behind: no output folder, no store, nothing in the storage."""

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clray.cli.app import app
from clray.config import load_config, override
from clray.errors import UserError
from clray.training.folder import CONFIG_FILE, claim_storage, write_config
from clray.training.metrics import append_metrics

GRID = {"objective.temperature": {"grid_search": [0.1, 0.5]}}
REFUSED = {
    "more clusters than images": ("--set", "clusters.num_clusters=1000000"),
    "no such data": ("--set", "data.name=parquet", "--set", "data.train_path=nowhere.parquet"),
    "a batch that the workers cannot share": ("--set", "train.num_workers=7"),
    "a name that leaves the folder": ("--name", "../x"),
    "a server that is not there": ("--tracking-uri", "http://127.0.0.1:9"),
    "nothing to resume": ("--name", "x", "--resume"),
    "nothing to resume, and more clusters than images": (
        "--name", "x", "--resume", "--set", "clusters.num_clusters=1000000",
    ),
}  # fmt: skip


@pytest.mark.parametrize("command", ["train", "sweep"])
@pytest.mark.parametrize("options", REFUSED.values(), ids=REFUSED)
def test_a_refused_command_makes_nothing(
    command: str, options: tuple[str, ...], tiny_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    config = tiny_yaml(search_space=GRID, train={"storage_path": str(kept)} if "--resume" not in options else {})
    done = CliRunner().invoke(app, [command, str(config), "-o", str(tmp_path / "out"), *options])
    assert isinstance(done.exception, UserError), done.output
    assert [each.name for each in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_run_of_another_config_is_not_fetched_from_the_storage(
    tiny_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    config = load_config(tiny_yaml(train={"storage_path": str(kept)}))
    write_config(config, kept / "mine")
    folder = tmp_path / "out" / "mine"
    with pytest.raises(UserError, match=rf"differs from {kept}/mine/{CONFIG_FILE} in train\.num_epochs"):
        claim_storage(override(config, {"train.num_epochs": 77}), folder, resume=True)
    with pytest.raises(UserError, match="holds no run to resume"):
        claim_storage(config, tmp_path / "out" / "other", resume=True)
    assert not (tmp_path / "out").exists()
    claim_storage(config, folder, resume=True)
    assert (folder / CONFIG_FILE).exists()


def test_a_run_of_an_earlier_version_is_fetched_though_it_kept_a_search_space(
    tiny_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    config = load_config(tiny_yaml(train={"storage_path": str(kept)}))
    write_config(override(config, {"search_space": [GRID]}), kept / "mine")
    append_metrics(kept / "mine", {"epoch": 1})
    claim_storage(config, tmp_path / "out" / "mine", resume=True)
    assert (tmp_path / "out" / "mine" / CONFIG_FILE).exists()
