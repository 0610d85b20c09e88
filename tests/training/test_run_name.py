"""Names of runs: which are refused, before anything is made."""

from pathlib import Path

import pytest

from clray.config import Config
from clray.errors import UserError
from clray.training.folder import claim_folder
from clray.training.run_name import as_run_name, check_run_name

REFUSED = [
    "", ".", "..", "../x", "../../x", "a/b", "/abs", "a\\b", "~x", "-rf", ".hidden", "x.", "x ", " x", "a\0b", "a\nb",
    "a\x1b[31mb", "it's", 'a"b', "a`b", "a;b", "$(id)", "a*b", "a[b]", "a:b", "a%20b", "a?b", "a#b", "ü", "a\u202eb",
    "x" * 101, "x" * 300, "latest", "mlflow.db", "mlartifacts", "clray.log", "x\n",
]  # fmt: skip


@pytest.mark.parametrize("name", REFUSED, ids=[ascii(name)[:12] for name in REFUSED])
@pytest.mark.parametrize("resume", [False, True])
def test_a_name_that_means_more_than_itself_is_refused_first(name: str, resume: bool, tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(UserError, match="name: "):
        claim_folder(Config(output=str(output)), "quick", name, resume=resume)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["x", "quick-20260101-120000", "My run 2", "k=50_t=0.1", "v1.2+b", "x" * 100])
def test_a_plain_name_is_taken_as_it_is(name: str) -> None:
    assert check_run_name(name) == name


def test_a_refusal_shows_no_name_of_hundreds_of_characters() -> None:
    with pytest.raises(UserError, match=r"of 100000 characters") as refused:
        check_run_name("y" * 100_000)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("text", ["quick", "my config (v2)", "../../x", "", "'", "é" * 50, "x" * 300, "-v", "a\x1b[0m"])
def test_a_name_made_of_any_text_is_valid_with_the_time_behind_it(text: str) -> None:
    assert check_run_name(f"{as_run_name(text)}-20260101-120000")
    assert check_run_name(as_run_name(text))


def test_a_config_file_of_any_name_gives_a_valid_default(tmp_path: Path) -> None:
    folder = claim_folder(Config(output=str(tmp_path)), "it's #1", None, resume=False)
    assert check_run_name(folder.name).startswith("it-s-1-")
