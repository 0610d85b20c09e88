"""MLflow stores for tests: made by migrations once, and copied."""

import shutil
from pathlib import Path

import pytest

from clray.track import store_file


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished MLflow store without content."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    store_file.make_store_file(path)
    return path


@pytest.fixture
def quick_stores(store_template: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """New stores are copies: the migrations of each would take seconds."""
    monkeypatch.setattr(store_file, "_create", lambda path: shutil.copyfile(store_template, path))
