"""What is said of a failure that is no error of the user's."""

import sys

import pytest

from clray.cli import app as cli


def fail() -> None:
    raise RuntimeError("broken")


@pytest.mark.parametrize(
    ("words", "way"),
    [
        (("train", "a.yaml"), "Run again with -v for"),
        (("cluster", "a.npy"), "Run again with -v for"),
        (("embed", "run"), "Set CLRAY_TRACEBACK=1 and run again for"),
        (("data", "build", "photos"), "Set CLRAY_TRACEBACK=1 and run again for"),
        ((), "Set CLRAY_TRACEBACK=1 and run again for"),
    ],
)
def test_the_way_to_the_traceback_is_one_that_the_command_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], way: str
) -> None:
    monkeypatch.setattr(cli, "app", Failing(cli.app))
    monkeypatch.setattr(cli.stops, "listen", lambda: None)
    monkeypatch.setattr(sys, "argv", ["clray", *words])
    monkeypatch.delenv("CLRAY_TRACEBACK", raising=False)
    with pytest.raises(SystemExit):
        cli.main()
    told = capsys.readouterr().err
    assert "broken" in told
    assert f"{way} the whole traceback." in told
    assert "Traceback (most" not in told
    monkeypatch.setenv("CLRAY_TRACEBACK", "1")
    with pytest.raises(SystemExit):
        cli.main()
    assert "Traceback (most recent call last)" in capsys.readouterr().err


class Failing:
    """The app, of which every command breaks."""

    def __init__(self, app: object) -> None:
        self.app = app

    def __call__(self) -> None:
        fail()

    def __getattr__(self, name: str) -> object:
        return getattr(self.app, name)
