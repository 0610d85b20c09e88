"""The user's own code, by its name."""

import sys
from pathlib import Path

import pytest

from clray.errors import UserError
from clray.user_code import import_named


def test_a_module_of_the_current_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_module_here.py").write_text("answer = 42")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert import_named("own_module_here:answer", "encoder.name") == 42


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("no_such_module:f", "ModuleNotFoundError"),
        ("math:no_such_name", "AttributeError"),
        ("raises_on_import:f", "ZeroDivisionError"),
        (":f", "ValueError"),
        ("math:", "AttributeError"),
    ],
)
def test_what_cannot_be_imported_names_key_and_reason(
    place: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raises_on_import.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(UserError, match=f"encoder.name={place}: cannot be imported .{reason}"):
        import_named(place, "encoder.name")
