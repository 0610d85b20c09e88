"""Where a local Ray keeps its files: for this user alone, short enough for sockets, gone at the end."""

import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from clray.errors import UserError
from clray.ray_runtime import private_folder
from clray.ray_runtime.private_folder import MAX_BYTES, make_private_folder

PLANTED = f"planted-{uuid.uuid4().hex}"  # no other test has it in the words of a command

# A trial of Ray Tune is given AWS keys in its runtime environment, which Ray logs.
LEAKING = """
import os, pathlib, ray, sys
from clray.ray_runtime.cluster import start_ray
os.umask(0o022)
start_ray(dashboard=True)
import ray._private.worker as worker
root = pathlib.Path(worker._global_node.get_temp_dir_path()).parent
keys = {"AWS_SECRET_ACCESS_KEY": os.environ["AWS_SECRET_ACCESS_KEY"]}

@ray.remote(runtime_env={"env_vars": keys})
def umask():
    found = os.umask(0)
    os.umask(found)
    return found

print(oct(ray.get(umask.remote())))
print(root, oct(root.stat().st_mode & 0o777), root.stat().st_uid == os.getuid())
planted = keys["AWS_SECRET_ACCESS_KEY"].encode()
print(sum(planted in path.read_bytes() for path in root.rglob("*") if path.is_file() and not path.is_symlink()))
seen = 0
for line in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
    try:
        seen += planted in line.read_bytes()
    except OSError:
        pass
print(seen)
if len(sys.argv) > 1:
    raise KeyboardInterrupt
"""


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose path is short, as pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize("interrupted", [pytest.param((), marks=pytest.mark.long), ("interrupted",)])
def test_keys_that_ray_logs_are_nobody_elses_and_gone_at_the_end(short: Path, interrupted: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAKING, *interrupted],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "AWS_SECRET_ACCESS_KEY": PLANTED, "TMPDIR": str(short)},
    )
    umask, folder, num_holding, num_seen = done.stdout.splitlines()
    assert umask == "0o22"
    root, mode, is_own = folder.split()
    assert Path(root).parent == short
    assert (mode, is_own) == ("0o700", "True")
    assert int(num_holding) > 0, "Ray logs no runtime environment any more: the private folder could go"
    assert num_seen == "0"
    assert not list(short.glob("clray-*"))
    assert not [path for path in short.rglob("*") if path.is_file() and PLANTED.encode() in path.read_bytes()]


def test_the_folder_is_private_and_leaves_room_for_sockets(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removals = []
    monkeypatch.setattr(private_folder.atexit, "register", removals.append)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(short))
    stopped = []
    inner = make_private_folder(lambda: stopped.append(True))
    inner.chmod(0o777)  # as Ray does with the folder it is given
    assert inner.parent.stat().st_mode & 0o777 == 0o700
    session = inner / "session_2026-11-25_13-42-32_271940_4194303" / "sockets" / "plasma_store"
    assert len(os.fsencode(session)) <= 107
    (removal,) = removals
    removal()
    assert stopped == [True]
    assert list(short.iterdir()) == []


def test_a_long_tmpdir_is_left_for_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path / ("x" * MAX_BYTES)))
    monkeypatch.setattr(private_folder.atexit, "register", lambda _: None)
    inner = make_private_folder(lambda: None)
    assert inner.parent.parent == Path("/tmp")
    assert "too long for Ray's sockets" in caplog.text
    private_folder._remove(inner.parent)


def test_a_long_folder_that_was_asked_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = tmp_path / ("x" * MAX_BYTES)
    chosen.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(chosen))
    with pytest.raises(UserError, match=r"^RAY_TMPDIR=.*at most 26 bytes.*such as /tmp"):
        make_private_folder(lambda: None)
    assert list(chosen.iterdir()) == []


def test_what_a_killed_process_left_is_removed_and_what_lives_is_not(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(short))
    monkeypatch.setattr(private_folder.atexit, "register", lambda _: None)
    living = make_private_folder(lambda: None).parent
    killed, fresh = short / "clray-killed", short / "clray-fresh"
    for folder in (killed, fresh):
        (folder / "r").mkdir(parents=True)
    hour_ago = time.time() - 2 * private_folder.STALE_SECONDS
    for folder in (living, killed):
        os.utime(folder, (hour_ago, hour_ago))
    private_folder._remove_stale(short)
    assert {each.name for each in short.iterdir()} == {living.name, "clray-fresh"}
