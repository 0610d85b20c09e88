"""Planted secrets, which must not turn up in anything that is written or printed."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clray.cli import app as cli
from clray.config import dump_yaml, parse_config
from clray.redaction import hide_credentials, hide_in_tree
from clray.train.checkpoint import read_checkpoint

PLANTED = "planted-7f3a9"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("s3://key:secret@bucket/x", "s3://***@bucket/x"),
        ("http://user@host:5000/a?b=c", "http://***@host:5000/a?b=c"),
        ("s3://b/x?secret_key=abc&region=eu", "s3://b/x?secret_key=***&region=eu"),
        ("http://h/?X-Amz-Signature=abc", "http://h/?X-Amz-Signature=***"),
        ("sqlite:////a/b@c.db", "sqlite:////a/b@c.db"),
        ("mail a@b.c and s3://bucket", "mail a@b.c and s3://bucket"),
    ],
)
def test_passwords_in_addresses_are_hidden_and_nothing_else(text: str, hidden: str) -> None:
    assert hide_credentials(text) == hidden
    assert hide_in_tree({"a": [text, 1, None]}) == {"a": [hidden, 1, None]}


def test_a_config_is_dumped_without_passwords() -> None:
    tracking, train = {"uri": f"http://user:{PLANTED}@host"}, {"storage_path": f"s3://a:{PLANTED}@b"}
    config = parse_config({"tracking": tracking, "train": train})
    assert PLANTED not in dump_yaml(config)
    assert "s3://***@b" in dump_yaml(config)


@pytest.mark.parametrize("option", ["-v", "--json"])
def test_a_traceback_is_printed_without_passwords(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise RuntimeError(f"no answer from http://user:{PLANTED}@host")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(sys, "argv", ["clray", "sweep", option])
    with pytest.raises(SystemExit):
        cli.main()
    printed = capsys.readouterr().err
    assert "http://***@host" in printed
    assert PLANTED not in printed
    assert ("Traceback" in printed) == (option == "-v")


@pytest.mark.slow
def test_no_secret_of_the_environment_or_of_an_address_is_left_anywhere(
    clray: Callable[..., subprocess.CompletedProcess], tiny_yaml: Callable[..., Path], tmp_path: Path
) -> None:
    """A server that is not there refuses a run by its address; a run in a folder records what it was given."""
    names = ("MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN")
    environment = dict.fromkeys(names, PLANTED)
    config = tiny_yaml(search_space={"objective.temperature": {"grid_search": [0.1, 0.5]}})
    uri = f"http://user:{PLANTED}@127.0.0.1:9"
    refused = clray("sweep", config, "-o", tmp_path / "out", "--tracking-uri", uri, **environment)
    assert refused.returncode == 2
    assert "http://***@127.0.0.1:9" in refused.stderr

    storage = f"file://{tmp_path}/kept?token={PLANTED}"
    setting = f"train.storage_path={storage}"
    done = clray("sweep", config, "-o", tmp_path / "out", "--name", "s", "-v", "--set", setting, **environment)
    assert done.returncode == 0, done.stderr
    for output in (refused, done):
        assert PLANTED not in output.stdout + output.stderr

    holding = []
    for folder, _, files in os.walk(tmp_path / "out"):
        holding += [file for file in files if PLANTED.encode() in (Path(folder) / file).read_bytes()]
    assert holding == []
    tables = sqlite3.connect(tmp_path / "out" / "mlflow.db").iterdump()
    assert not any(PLANTED in line for line in tables)
    assert PLANTED not in str(read_checkpoint(tmp_path / "out" / "s" / "trials" / "0000")["config"])
