"""Whether all nodes write into one folder: a node that is lost while it is asked does not end the command."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from clray.errors import UserError
from clray.ray_runtime import cluster

LOST, APART, HERE = (f"{number}" * 56 for number in (1, 2, 3))


class Probe:
    """Stands for the task on a node: the folder of one is another, and one ends with its node."""

    def __init__(self, node: str) -> None:
        self.node = node

    def remote(self, path: str) -> str:
        if self.node == HERE:
            Path(path).touch()
        return self.node


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets a cluster of these nodes answer in place of Ray's."""

    def answer(*nodes: str) -> None:
        def get(node: str) -> None:
            if node == LOST:
                raise ray.exceptions.NodeDiedError("Task failed due to the node dying.")

        alive = [{"NodeID": node, "NodeManagerAddress": f"10.0.0.{node[0]}", "Alive": True} for node in nodes]
        probe = SimpleNamespace(options=lambda scheduling_strategy: Probe(scheduling_strategy.node_id))
        monkeypatch.setattr(ray, "nodes", lambda: alive)
        monkeypatch.setattr(ray, "get", get)
        monkeypatch.setattr(cluster, "_write_probe", probe)

    return answer


def test_a_node_lost_while_it_is_asked_is_told_and_the_others_decide(
    ask: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ask(HERE, LOST)
    with caplog.at_level(logging.WARNING):
        cluster.require_shared_folder(tmp_path)
    assert "node 10.0.0.1 could not be asked" in caplog.text
    assert not list(tmp_path.iterdir())
    ask(HERE, LOST, APART)
    with pytest.raises(UserError, match=r"not on 10\.0\.0\.2 \(its file cannot be seen"):
        cluster.require_shared_folder(tmp_path)
