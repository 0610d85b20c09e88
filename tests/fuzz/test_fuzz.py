"""Whatever is given to clray, it succeeds or raises UserError, within 5 seconds.

Some 10,000 cases by default. `CLRAY_FUZZ_SECONDS=3600` runs for an hour instead, `CLRAY_FUZZ_SEED` chooses where the
seeds begin, and `CLRAY_FUZZ_CASE="CSV:17"` runs one case again.
"""

import os
import re
import shutil
import signal
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from clray.errors import UserError
from tests.fuzz.targets import TARGETS

LONGEST_SECONDS = 5.0
LONGEST_MESSAGE = 10_000
SECONDS = float(os.environ.get("CLRAY_FUZZ_SECONDS", 0))
FIRST_SEED = int(os.environ.get("CLRAY_FUZZ_SEED", 0))


class TooSlow(BaseException):
    """A case that takes too long; no `except Exception` keeps it."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """In processor time, which other processes of a busy machine do not lengthen."""

    def stop(*_: object) -> None:
        raise TooSlow(f"more than {seconds} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def fault_of(name: str, seed: int, root: Path) -> str | None:
    """What is wrong with how a case ends, or None."""
    folder = Path(tempfile.mkdtemp(dir=root))
    try:
        with time_limit(LONGEST_SECONDS), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            TARGETS[name][0](Random(f"{name}:{seed}"), folder)
    except UserError as error:
        message = str(error)
        if re.search(r" at 0x[0-9a-f]{6}", message) or not message.strip() or len(message) > LONGEST_MESSAGE:
            return f"an unfit message of {len(message)} characters: {message[:300]!r}"
    except (Exception, TooSlow):
        return traceback.format_exc()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return None


def run(name: str, seeds: Iterator[int], root: Path) -> list[str]:
    """The faults of these cases, one for each place that raises."""
    found: dict[str, str] = {}
    for seed in seeds:
        fault = fault_of(name, seed, root)
        if fault is not None:
            lines = fault.strip().splitlines()
            place = next((line.strip() for line in reversed(lines) if line.startswith("  File")), lines[-1][:60])
            found.setdefault(place, f'CLRAY_FUZZ_CASE="{name}:{seed}"\n{fault}')
    return list(found.values())


def seeds_of(count: int, seconds: float) -> Iterator[int]:
    end = time.monotonic() + seconds
    seed = FIRST_SEED
    while (time.monotonic() < end) if SECONDS else (seed < FIRST_SEED + count):
        yield seed
        seed += 1


@pytest.mark.timeout(600 + 2 * SECONDS)
@pytest.mark.parametrize("name", TARGETS)
def test_every_case_succeeds_or_is_the_users_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen, _, case = os.environ.get("CLRAY_FUZZ_CASE", "").rpartition(":")
    if chosen:
        faults = run(name, iter([int(case)]), tmp_path) if chosen == name else []
    else:
        faults = run(name, seeds_of(TARGETS[name][1], SECONDS / len(TARGETS)), tmp_path)
    assert not faults, f"{len(faults)} kinds of fault:\n\n" + "\n\n".join(faults)


def test_a_case_that_hangs_or_raises_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(random: Random, folder: Path) -> None:  # noqa: ARG001
        while True:
            with suppress(Exception):
                sum(range(1000))

    def fail(random: Random, folder: Path) -> None:  # noqa: ARG001
        raise KeyError("x")

    def mislead(random: Random, folder: Path) -> None:  # noqa: ARG001
        raise UserError(f"expected a number; got {object()}")

    monkeypatch.setitem(globals(), "LONGEST_SECONDS", 0.2)
    for target, message in ((hang, "TooSlow"), (fail, "KeyError"), (mislead, "unfit message")):
        monkeypatch.setitem(TARGETS, "x", (target, 1))
        (fault,) = run("x", iter([1, 2]), tmp_path)
        assert message in fault


def test_ten_thousand_cases_are_drawn() -> None:
    assert sum(count for _, count in TARGETS.values()) >= 10_000
