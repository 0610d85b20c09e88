"""A store that tests damage copies of."""

from pathlib import Path

import pytest

from clray.track import store_file


@pytest.fixture(scope="session")
def store_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished MLflow store without content."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    store_file.make_store_file(path)
    return path
