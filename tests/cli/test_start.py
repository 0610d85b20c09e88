"""The command that resumes an interrupted run, read back as a shell would."""

import shlex
from pathlib import Path

import pytest

from clray.cli.data import _as_sets
from clray.cli.start import resume_command
from clray.config import Config, parse_assignment, parse_config

ASSIGNMENTS = [
    "clusters.granularities=[500, 50]", "encoder.name='resnet18'", 'data.train_path="a b; rm -rf x"', "seed=3",
    "data.train_path=$(id)", "data.train_path=`id`", "output=a*b", "data.train_path=it's", "data.train_path=[/b]:bug:",
]  # fmt: skip


def test_the_resume_command_keeps_every_character() -> None:
    config = Config(output="out put/it's [a,b]")
    words = shlex.split(resume_command("sweep", Path("my; config.yaml"), ASSIGNMENTS, config, Path("/x/run 1")))
    sets = [part for assignment in ASSIGNMENTS for part in ("--set", assignment)]
    end = ["--output", "out put/it's [a,b]", "--name", "run 1", "--resume"]
    assert words == ["clray", "sweep", "my; config.yaml", *sets, *end]


def test_the_resume_command_shows_no_password() -> None:
    config = parse_config({"tracking": {"uri": "http://user:planted-7f3a9@host"}})
    setting = "train.storage_path=s3://key:planted-7f3a9@bucket?token=planted-7f3a9"
    command = resume_command("train", Path("c.yaml"), [setting], config, Path("/x/r"))
    assert "planted" not in command
    assert "train.storage_path=s3://***@bucket?token=***" in shlex.split(command)


@pytest.mark.parametrize("path", ["plain/x", "a b", "it's", "a: b", "#1", "[x]", "true", "null", "é;rm"])
def test_a_printed_setting_means_the_path_it_names(path: str) -> None:
    flag, assignment = shlex.split(_as_sets({"data.train_path": Path(path)}))
    assert flag == "--set"
    assert parse_assignment(assignment) == ("data.train_path", path)
