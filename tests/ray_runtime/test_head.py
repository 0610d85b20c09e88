"""A head that goes away, comes back, stays away, or comes back as another; integration/test_hosts.py kills one."""

import socket
from collections.abc import Iterator

import pytest
import ray
from ray.cluster_utils import Cluster

from clray.ray_runtime import head as ray_head
from clray.ray_runtime.cluster import start_ray
from clray.ray_runtime.head import _Head

pytestmark = pytest.mark.slow


@pytest.fixture
def heard() -> list[str]:
    return []


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[None]:
    start_ray()
    yield
    ray.shutdown()


@pytest.fixture
def head(heard: list[str], ray_cluster: None) -> _Head:  # noqa: ARG001
    return _Head(heard.append, lambda reason: heard.append(f"lost: {reason}"))


def closed_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def test_an_absence_is_told_once_and_its_end(head: _Head, heard: list[str]) -> None:
    assert head.check()
    assert heard == []
    address, head.address = head.address, closed_address()
    assert not head.check()
    assert not head.check()
    (away,) = heard
    assert away.endswith("does not answer; waiting for it")
    head.address = address
    assert head.check()
    assert head.check()
    assert heard[1:] == ["the head of the Ray cluster answers again"]


def test_a_head_that_stays_away_is_lost(head: _Head, heard: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_head, "HEAD_TIMEOUT_SECONDS", 0.0)
    head.address = closed_address()
    assert not head.check()
    assert not head.check()
    assert heard[1] == f"lost: the head of the Ray cluster, {head.address}, has not answered for 0 s"


def test_another_cluster_at_its_address_is_not_taken_for_it(head: _Head, heard: list[str]) -> None:
    other = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        head.address = other.address
        head.check()
    finally:
        other.shutdown()
    (lost,) = heard
    assert lost.startswith(f"lost: the head of the Ray cluster, {head.address}, was restarted and has lost this work")
