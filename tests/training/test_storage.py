"""Checkpoints in a folder, in memory through fsspec, and in a server that speaks S3, on loopback."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from clray.config import Config
from clray.data.load import load_dataset
from clray.errors import UserError
from clray.training.checkpoint import read_checkpoint
from clray.training.checkpoint_form import Snapshot
from clray.training.metrics import Metrics, read_metrics
from clray.training.storage import Storage, keep_results
from clray.training.trainer import run
from clray.training.workers import process
from clray.training.workers.group import checkpoint_of_one
from clray.training.workers.process import LocalSession

MakeConfig = Callable[..., Config]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.1)
    options = f"scheme=http&endpoint_override=127.0.0.1:{port}&allow_bucket_creation=true"
    yield f"s3://key:secret@bucket/runs?{options}"
    server.kill()
    server.wait()


def interrupted(config: Config, folder: Path, storage: Storage, stop_after: int | None) -> Metrics:
    def on_report(metrics: Metrics) -> None:
        if metrics["epoch"] == stop_after:
            raise KeyboardInterrupt

    session = LocalSession(folder, None, on_report, torch.device("cpu"), storage=storage)
    return run(config, load_dataset(config.data), session)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "memory", "s3"])
def test_a_run_whose_folder_is_lost_goes_on_from_the_storage(
    tiny_config: MakeConfig, tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    uri = {"folder": str(tmp_path / "mnt"), "memory": "memory://runs"}.get(kind) or request.getfixturevalue("s3")
    storage = Storage(uri, "sweep/0001")
    storage.check()
    config = tiny_config(clusters={"source": "labels"}, train={"num_epochs": 4})
    whole = interrupted(config, tmp_path / "whole", Storage(uri, "whole"), None)
    with pytest.raises(KeyboardInterrupt):
        interrupted(config, tmp_path / "here", storage, 2)
    resumed = interrupted(config, tmp_path / "there", storage, None)
    assert [metrics["epoch"] for metrics in read_metrics(tmp_path / "there")] == [1, 2, 3, 4]
    assert resumed["train/loss"] == whole["train/loss"]
    first, second = (read_checkpoint(tmp_path / name)["model"] for name in ("whole", "there"))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.slow
@pytest.mark.long
def test_a_worker_group_whose_output_folder_is_lost_goes_on_from_the_storage(
    clray: Callable[..., subprocess.CompletedProcess], tiny_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    train = {"num_workers": 2, "cpus_per_worker": 0.5, "storage_path": str(tmp_path / "kept")}
    config = tiny_yaml(clusters={"source": "labels"}, train=train)
    first = clray("train", config, "-o", tmp_path / "here", "--name", "r", "--json")
    assert first.returncode == 0, first.stderr
    whole = read_metrics(tmp_path / "here" / "r")
    assert [each["epoch"] for each in whole] == [1, 2, 3]
    shutil.rmtree(tmp_path / "here")
    done = clray("train", config, "-o", tmp_path / "there", "--name", "r", "--json", "--resume")
    assert done.returncode == 0, done.stderr
    assert read_metrics(tmp_path / "there" / "r") == whole


def test_a_group_starts_from_what_one_worker_kept_in_the_storage(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "kept"), "r")
    assert checkpoint_of_one(tmp_path, None) == []
    assert checkpoint_of_one(tmp_path, storage) == []
    (tmp_path / "checkpoint.pt").write_bytes(b"of one")
    assert checkpoint_of_one(tmp_path, None) == [tmp_path / "checkpoint.pt"]
    assert storage.upload(tmp_path / "checkpoint.pt")
    (tmp_path / "new").mkdir()
    (found,) = checkpoint_of_one(tmp_path / "new", storage)
    assert found.read_bytes() == b"of one"


@pytest.mark.parametrize("is_kept", [True, False])
def test_what_one_worker_keeps_in_the_storage_replaces_the_older_of_a_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_kept: bool
) -> None:
    """But for where it was not copied there, which leaves the group's the newest that the storage has."""
    storage, of_group = Storage(str(tmp_path / "kept"), "r"), tmp_path / "kept" / "r" / "workers"
    (of_group / "checkpoint_1").mkdir(parents=True)
    if not is_kept:
        monkeypatch.setattr(Storage, "upload", lambda *_: False)
    monkeypatch.setattr(process, "write_checkpoint", lambda folder, *_, **__: (folder / "checkpoint.pt").touch())
    session = LocalSession(tmp_path, None, lambda _: None, torch.device("cpu"), storage=storage)
    session.save(Snapshot({"config": {"train": {"num_checkpoints": 1}}}, {"meter": {}, "bank": None}))  # type: ignore[typeddict-item]
    session.close()
    assert of_group.exists() is not is_kept


def test_results_are_copied_again_only_where_they_have_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the end of a trial costs the same in a sweep of any number of trials."""
    folder, copied, upload = tmp_path / "s", list[str](), Storage.upload
    (folder / "trials").mkdir(parents=True)
    (folder / "config.yaml").write_text("seed: 0\n", encoding="utf-8")
    monkeypatch.setattr(Storage, "upload", lambda self, file: copied.append(file.name) or upload(self, file))
    config, kept = Config.model_validate({"train": {"storage_path": str(tmp_path / "kept")}}), {}
    for number in range(3):
        with (folder / "points.jsonl").open("a", encoding="utf-8") as file:
            file.write(f"{number}\n" if number != 1 else "")
        keep_results(config, folder, "s", kept)
    assert copied == ["config.yaml", "points.jsonl", "points.jsonl"]
    assert (tmp_path / "kept" / "s" / "points.jsonl").read_text(encoding="utf-8") == "0\n2\n"
    keep_results(config, folder, "s")
    assert copied[3:] == ["config.yaml", "points.jsonl"]


def test_a_storage_that_cannot_be_written_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"train\.storage_path: .*file cannot be written"):
        Storage(str(tmp_path / "file"), "run").check()
    with pytest.raises(UserError, match=r"train\.storage_path: nosuch://x names no storage"):
        Storage("nosuch://x", "run").check()
