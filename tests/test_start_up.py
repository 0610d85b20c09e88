"""What a command and a run import: what takes seconds only where it is needed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

HEAVY = ("ray", "mlflow", "torch", "torchvision", "faiss", "sklearn", "matplotlib", "pandas")


def imported_by(code: str, folder: Path) -> set[str]:
    """The heavy packages that a process has imported at its end."""
    script = f"{code}\nimport sys\nprint('imported', *(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=folder, check=False, timeout=300,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize(
    "code",
    [
        "import clray",
        "from clray.cli.app import app",
        "import clray\ntry: clray.train({'objective': {'temprature': 1}})\nexcept clray.UserError: pass",
        "import clray\ntry: clray.load_config('nowhere.yaml')\nexcept clray.UserError: pass",
    ],
    ids=["import", "command", "refused", "no file"],
)
def test_the_front_imports_nothing_heavy(code: str, tmp_path: Path) -> None:
    assert imported_by(code, tmp_path) == set()


@pytest.mark.slow
def test_the_process_of_a_trial_imports_nothing_that_it_may_not_need(tmp_path: Path) -> None:
    imported = imported_by("import clray.sweeps.trainable", tmp_path)
    assert imported.isdisjoint({"mlflow", "torchvision", "matplotlib"})


@pytest.mark.slow
def test_a_run_in_this_process_imports_neither_ray_nor_torchvision_nor_matplotlib(tmp_path: Path) -> None:
    code = "import clray\nfrom tests.conftest import TINY\nclray.train({**TINY, 'output': 'out'}, debug=True)"
    assert imported_by(code, tmp_path).isdisjoint({"ray", "torchvision", "matplotlib"})
