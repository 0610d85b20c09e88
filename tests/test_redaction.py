"""Planted secrets, which must not turn up in anything that is written or printed."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from clray.cli import app as cli
from clray.config import dump_yaml, parse_config
from clray.errors import TrainingError, UserError
from clray.redaction import hide_credentials, hide_in_tree
from clray.training.checkpoint import read_checkpoint

PLANTED = "planted-7f3a9"


SECRETS = [
    "http://user:{}@host", "http://user:{}@host:5000/a?b=c", "http://:{}@host", "http://{}@host", "//user:{}@host/x",
    "HTTP://User:{}@Host", "http://user:{}@[::1]:5000/", "https://{}:x-oauth@host", "s3://key:{}@bucket/x",
    "postgresql+psycopg2://u:{}@db:5432/mlflow", "--tracking-uri=http://u:{}@h", "('http://user:{}@host',)",
    # Passwords that are not percent-encoded, and some that are.
    "http://user:a/{}@host:5000/x", "http://user:a@{}@host", "http://user:a@{}/b@host", "http://user:a {}@host.example",
    "http://user:{} b@host:80", "http://user:a@{} b@host:80/x", "http://user:a#{}@host", "http://user:a?{}@host",
    "http://user:a'{}@host", "http://user:50%{}@host", "http://user:a%2F{}@host", "http://user:{}%40x@host",
    "http://user:123{}@host", "http://user:p:{}@host",
    # Without a scheme.
    "user:{}@host", "user:a@{}@host:5000", "user:a/{}@host",
    # Several in a text, and what parsers make of them.
    "http://a:{}@h1 and s3://k:{}@h2/x", "see http://host:5000 or http://user:{}@host", "one\nhttp://user:{}@host\ntwo",
    "nonnumeric port: '{}@host'", "Port could not be cast to integer value as 'a{}'",
    "http://x/?next=http%3A%2F%2Fuser%3A{}%40host",
    # Options of addresses.
    "http://h/?sig={}", "http://h/?a=b&sig={}", "http://h/?pwd={}", "http://h/?passwd={}", "http://h/?password={}",
    "http://h/?credential={}", "http://h/?token={}", "http://h/?access_token={}#end", "http://h/?key={}&a=b",
    "http://h/?api_key={}", "http://h/?X-Amz-Signature={}", "http://h/?X-Amz-Credential={}%2F2026&x=1",
    "http://h/?X%2DAmz%2DSignature={}", "http://h/?AWSAccessKeyId={}", "s3://b/x?secret_key={}&region=eu",
    # Variables, headers, and trees written as text.
    "AWS_SECRET_ACCESS_KEY={}", "MLFLOW_TRACKING_PASSWORD='{} x'", "AccountKey={};Endpoint=x", "password={}",
    "{{'secret_key': '{}'}}", '{{"password": "{}"}}', "Authorization: Bearer {}", "{{'Authorization': 'Basic {}'}}",
]  # fmt: skip
HARMLESS = [
    "sqlite:////a/b@c.db", "mail a@b.c and s3://bucket", "http://host:5000/a/b@2x.png", "file:///tmp/a b/c@d",
    "http://127.0.0.1:5000/#/experiments/1/runs?orderByKey=metrics.x&orderByAsc=false", "http://[::1]:5000, or a@b.c",
    "http://host:5000. Write to me@x.org", "http://host:5000 (me@x.org)", "http://HOST:PORT or me@x.org",
    "https://example.org/a?page=2&sort=key", "git@github.com:me/x.git", "mailto:me@x.org", "HOST:PORT of the cluster",
    "rayproject/ray:2.60@sha256:abcdef", "12:30@noon", "s3://bucket/a:b", "@decorator // comment",
    "expected KEY=VALUE, for example --set clusters.num_clusters=50", "search_space: unknown key 'clusters.k'",
    "RAY_AUTH_MODE=token", "RAY_AUTH_TOKEN_PATH=/x", "PWD=/home/x", "num_tokens=5", "tokenizer=bert", "key=5",
    "signature: pixels in 0..1", "{'key': 'y', 'name': 'z'}", "trial k=50 t=0.1", "tags.`clray.id` = 'x'",
]  # fmt: skip


@pytest.mark.parametrize("form", SECRETS)
def test_a_planted_password_is_hidden_in_every_form(form: str) -> None:
    text = form.format(PLANTED, PLANTED)
    assert PLANTED not in hide_credentials(text)
    assert PLANTED not in hide_credentials(f"Error: {text}: refused (see the log)")
    assert PLANTED not in str(hide_in_tree({"a": [text, 1, None]}))
    assert PLANTED not in str(UserError(text)) + str(TrainingError(text))


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_text_stays_as_it_is(text: str) -> None:
    assert hide_credentials(text) == text
    assert hide_in_tree({"a": [text, 1, None]}) == {"a": [text, 1, None]}


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("s3://key:secret@bucket/x", "s3://***@bucket/x"),
        ("http://user@host:5000/a?b=c", "http://***@host:5000/a?b=c"),
        ("s3://b/x?secret_key=abc&region=eu", "s3://b/x?secret_key=***&region=eu"),
        ("no answer at http://u:p@h:5000 (refused)", "no answer at http://***@h:5000 (refused)"),
        ("http://u:p@h and mail a@b.c", "http://***@h and mail a@b.c"),
        ("http://a:x@h1, s3://k:y@h2/z", "http://***@h1, s3://***@h2/z"),
        ("(http://h/?sig=abc), then", "(http://h/?sig=***), then"),
    ],
)
def test_what_stands_around_a_password_stays(text: str, hidden: str) -> None:
    assert hide_credentials(text) == hidden


def test_the_value_of_a_secret_key_is_hidden_in_a_tree() -> None:
    tree = {"searcher_options": {"api_key": PLANTED, "rows": 3}, "name": "x"}
    assert hide_in_tree(tree) == {"searcher_options": {"api_key": "***", "rows": 3}, "name": "x"}


def test_no_key_of_the_config_is_taken_for_a_secret() -> None:
    tree = parse_config({}).model_dump(mode="json")
    assert hide_in_tree(tree) == json.loads(json.dumps(tree))


@pytest.mark.parametrize(
    "text", ["a" * 10**6, "a:" * 10**5, "//" * 10**5, "x=y " * 10**5, "a@" * 10**5, "//a:" * 10**4]
)
def test_long_texts_are_searched_in_time_that_grows_with_them(text: str) -> None:
    start = time.process_time()
    hide_credentials(text)
    assert time.process_time() - start < 5


def test_a_config_is_dumped_without_passwords() -> None:
    tracking, train = {"uri": f"http://user:{PLANTED}@host"}, {"storage_path": f"s3://a:{PLANTED}@b"}
    config = parse_config({"tracking": tracking, "train": train})
    assert PLANTED not in dump_yaml(config)
    assert "s3://***@b" in dump_yaml(config)


@pytest.mark.parametrize("option", ["-v", "--json"])
def test_a_traceback_is_printed_without_passwords(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Failing(typer.Typer):
        def __call__(self, *_: object, **__: object) -> None:
            raise RuntimeError(f"no answer from http://user:{PLANTED}@host")

    failing = Failing()
    vars(failing).update(vars(cli.app))
    monkeypatch.setattr(cli, "app", failing)
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
