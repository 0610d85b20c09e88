"""A node that is lost is told once; one that whoever scales the cluster has ended is not."""

import time

import pytest
import ray

from clray.ray_runtime import lost_nodes
from clray.ray_runtime.lost_nodes import Losses, nodes_watched

EXPECTED, UNEXPECTED, IDLE = 1, 2, 4


def node(number: int, reason: int | None = None) -> dict:
    about = {"NodeID": f"id{number}", "NodeManagerAddress": f"10.0.0.{number}", "Alive": reason is None}
    return about if reason is None else about | {"DeathReason": reason}


def test_a_lost_node_is_told_once_and_one_that_was_ended_never() -> None:
    losses = Losses([node(1), node(2), node(3), node(4, UNEXPECTED)])
    told = losses.since([node(1), node(2, UNEXPECTED), node(3, IDLE), node(4, UNEXPECTED), node(5)])
    assert told == ["node 10.0.0.2 of the Ray cluster is lost, 2 are left; what ran there is started again on these"]
    assert losses.since([node(1), node(2, UNEXPECTED), node(3, IDLE), node(5, EXPECTED)]) == []


def test_it_is_told_while_the_work_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([[node(1), node(2)], [node(1), node(2, UNEXPECTED)]])
    last = [node(1), node(2, UNEXPECTED)]
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "nodes", lambda: next(answers, last))
    monkeypatch.setattr(lost_nodes, "CHECK_SECONDS", 0.01)
    heard: list[str] = []
    with nodes_watched(heard.append):
        deadline = time.monotonic() + 60
        while not heard and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(heard) == 1
