"""What a local Ray listens on, and what it refuses."""

import socket
import subprocess
import sys

import pytest

from clray.errors import UserError
from clray.ray_runtime import cluster as ray_cluster

LISTENING = """
import psutil, ray
from clray.ray_runtime.cluster import start_ray
start_ray(dashboard=True)
processes = [p for p in psutil.Process().children(recursive=True)] + [psutil.Process()]
for process in processes:
    for connection in process.net_connections("inet"):
        if connection.status == "LISTEN":
            print(connection.laddr.ip)
"""


@pytest.mark.slow
def test_nothing_listens_beyond_loopback() -> None:
    done = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True, timeout=120, check=True)
    addresses = set(done.stdout.split())
    assert addresses
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}


def test_no_free_port_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(*_: object) -> None:
        raise OSError(98, "Address already in use")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(UserError, match=r"no free port on 127\.0\.0\.1 \(Address already in use\).*RAY_ADDRESS"):
        ray_cluster.require_free_port()


def test_a_ray_that_does_not_start_in_time_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup. This could happen")

    monkeypatch.setattr(ray_cluster.ray, "init", init)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(UserError, match=r"cannot start on this machine: The current node timed out .* try again"):
        ray_cluster.start_ray()
