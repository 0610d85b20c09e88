"""`clray` in a process of its own that need not import: it is forked from one that has.

What a command imports takes longer than most commands. tests/test_start_up.py holds what that is, and commands that are
killed (tests/integration/test_faults.py) start as from a shell.
"""

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any, NoReturn

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    ["clray.cli.app", "clray.runs", "torch", "mlflow", "ray", "clray.training.workers.launch"]
)


def become_command(arguments: Sequence[str], environment: Mapping[str, str], stdout: int, stderr: int) -> NoReturn:
    """This process goes on as clray with these arguments, as a shell starts it."""
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    sys.argv = ["clray", *arguments]
    from clray.cli.app import main

    try:
        main()
        sys.exit(0)
    finally:
        atexit._run_exitfuncs()  # multiprocessing ends a process without them


def run(
    arguments: Sequence[object],
    environment: Mapping[str, str] | None = None,
    folder: Path = Path(),
    timeout: float = 480,
) -> subprocess.CompletedProcess:
    """What `clray ARGUMENTS` returns and prints in this folder.

    Raises:
        subprocess.TimeoutExpired: after this many seconds; the command has been killed
    """
    words = [str(each) for each in arguments]
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        handed: Any = (DupFd(out.fileno()), DupFd(err.fileno()))
        # What other tests of this process have told their Ray is not for this one.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        surroundings = {**inherited, **(environment or {})}
        process = PROCESSES.Process(target=_command, args=(words, surroundings, folder.resolve(), *handed))
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(["clray", *words], timeout)
        for file in (out, err):
            file.seek(0)
        return subprocess.CompletedProcess(["clray", *words], process.exitcode, out.read(), err.read())


def _command(words: list[str], environment: dict[str, str], folder: Path, stdout: Any, stderr: Any) -> None:
    os.chdir(folder)
    become_command(words, environment, stdout.detach(), stderr.detach())
