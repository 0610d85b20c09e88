"""Training, clustering and evaluation keep to the device they are given; see on_accelerator.py."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.slow
def test_all_that_runs_on_a_device_keeps_to_it() -> None:
    """In a process of its own, as torch counts devices once, at the first backward pass of a process."""
    command = [sys.executable, "-m", "pytest", "-n", "0", str(HERE / "on_accelerator.py")]
    done = subprocess.run(command, cwd=HERE.parent.parent, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "14 passed" in done.stdout
