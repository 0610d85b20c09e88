"""The examples run as they stand, each in a process of its own, and stay short."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

EXAMPLES = sorted((REPOSITORY / "docs" / "examples").glob("*.py"))
ON_REQUEST = {"04_sweep", "05_own_objective", "06_callback"}
"""These train; tests/test_runs.py and the tests of objectives hold what they show."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "example",
    [pytest.param(path, marks=pytest.mark.long if path.stem in ON_REQUEST else (), id=path.stem) for path in EXAMPLES],
)
def test_an_example_runs_and_prints_what_it_found(example: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, example], capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) >= 2
    assert not any(tmp_path.iterdir()), "an example leaves nothing behind"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_fits_on_a_screen(example: Path) -> None:
    assert len(example.read_text(encoding="utf-8").splitlines()) < 60
