"""Many Ray nodes on this machine, as raylets that only count resources: what lies on each, and how one is lost."""

import os
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import ray
from ray._private import services
from ray._private.node import Node
from ray._private.state import actors
from ray._raylet import persist_port  # type: ignore[attr-defined]  # of Cython, without stubs
from ray.cluster_utils import Cluster

QUIET = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_worker_niceness": "0",
    # No idle worker waits on a node that only counts.
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    # One machine stands for many: an answer may take a while; who does not listen at all is lost as ever.
    "RAY_health_check_timeout_ms": "60000",
    "RAY_gcs_server_request_timeout_seconds": "300",
    "RAY_agent_register_timeout_ms": "600000",
}
STORE_BYTES = 80 * 2**20
AT_A_TIME = 4
STARTING_SECONDS = 600.0
MIN_FREE_BYTES = 4 * 2**30
AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
AGENT_OPTION = "--dashboard_agent_command="
# Ends within seconds of its raylet, however that ends.
AGENT = 'raylet=$PPID; while kill -0 "$raylet" 2>/dev/null && [ "$PPID" = "$raylet" ]; do sleep 5; done\n'


class Raylets:
    """A head that holds the command alone, and nodes with CPUs and labels.

    Attributes:
        address: of the head.
        mib_per_node: what a node took of the machine's free memory.
    """

    def __init__(self, folder: Path, nodes: Sequence[tuple[int, dict[str, str]]]) -> None:
        """Args: `nodes` are the CPUs and labels of each. Raises MemoryError where they leave too little free."""
        self.folder = folder
        head = {
            "num_cpus": 0,
            "include_dashboard": True,  # frees the placement groups of a sweep's groups
            "dashboard_port": _free_port(),
            "dashboard_agent_listen_port": None,
            "object_store_memory": 4 * STORE_BYTES,
            "temp_dir": str(folder),
        }
        self.starting: dict[Node, tuple[str, int, dict[str, str]]] = {}
        self.cluster = Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
        self.address: str = self.cluster.address
        before = psutil.virtual_memory().available
        try:
            with _light(folder):
                for number, (num_cpus, labels) in enumerate(nodes):
                    self._add(f"{number}", num_cpus, labels)
                    self._wait_for(number + 2 - AT_A_TIME)
                self._wait_for(len(nodes) + 1)
        except BaseException:
            self.close()
            raise
        self.mib_per_node = (before - psutil.virtual_memory().available) / 2**20 / max(len(nodes), 1)
        self.by_id = {node.node_id: node for node in self.cluster.worker_nodes}

    def _add(self, name: str, num_cpus: int, labels: dict[str, str]) -> None:
        if psutil.virtual_memory().available < MIN_FREE_BYTES:
            raise MemoryError(f"less than {MIN_FREE_BYTES / 2**30:.0f} GiB are free")
        node = self.cluster.add_node(
            wait=False, num_cpus=num_cpus, labels=labels, object_store_memory=STORE_BYTES, temp_dir=str(self.folder),
            # Else those that start together choose the same.
            raylet_socket_name=str(self.folder / f"r{name}"),
            plasma_store_socket_name=str(self.folder / f"p{name}"),
            runtime_env_agent_port=_free_port(),
        )  # fmt: skip
        self.starting[node] = (name, num_cpus, labels)

    def _wait_for(self, count: int) -> None:
        """Until so many nodes are there; one that ended as it started is started again."""
        deadline = time.monotonic() + STARTING_SECONDS
        while self._start_again() or len(self.cluster.global_state._live_node_ids()) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{count} nodes are not there after {STARTING_SECONDS:.0f} s")
            time.sleep(0.5)

    def _start_again(self) -> bool:
        """Whether a node had ended."""
        ended = [each for each in self.starting if each.dead_processes()]
        for node in ended:
            name, num_cpus, labels = self.starting.pop(node)
            print(f"node {name} ended as it started: {node.dead_processes()}", file=sys.stderr, flush=True)
            self.cluster.remove_node(node, allow_graceful=False)
            self._add(f"{name}a", num_cpus, labels)
        return bool(ended)

    def lose(self, node: str) -> None:
        """End a node's processes by SIGKILL, as when its power fails."""
        self.cluster.remove_node(self.by_id.pop(node), allow_graceful=False)

    def close(self) -> None:
        ray.shutdown()
        self.cluster.shutdown()


@contextmanager
def raylets(nodes: Sequence[tuple[int, dict[str, str]]]) -> Iterator[Raylets]:
    """These nodes, joined by this process too; all ends with the block."""
    os.environ.update(QUIET)
    with tempfile.TemporaryDirectory(prefix="n", dir="/tmp", ignore_cleanup_errors=True) as folder:
        made = Raylets(Path(folder), nodes)
        try:
            ray.init(address=made.address, log_to_driver=False, logging_level="ERROR")
            signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))  # Ray's own would leave the nodes
            yield made
        finally:
            made.close()


def where_actors_are() -> dict[str, Counter[str]]:
    """The nodes of each class of actors that live now, with how many of them each has."""
    found: dict[str, Counter[str]] = {}
    for each in actors().values():
        if each["State"] == "ALIVE":
            found.setdefault(each["ActorClassName"].rpartition(".")[2], Counter())[each["Address"]["NodeID"]] += 1
    return found


@contextmanager
def _light(folder: Path) -> Iterator[None]:
    """Start raylets whose dashboard agent, 70 MiB and a second of CPU time each, is a shell that waits.

    They say that it has no ports, as Ray's own agent does where `ray[default]` is not installed. Nor is each node
    waited for: Ray asks for it without a pause, and gives up after 30 s.
    """
    script = folder / "agent.sh"
    script.write_text(AGENT, encoding="utf-8")
    start = services.start_ray_process

    def start_without(command: list[str], *arguments: Any, **options: Any) -> Any:
        settings = dict(each[2:].partition("=")[::2] for each in command if each.startswith("--"))
        if "dashboard_agent_command" in settings:
            for name in AGENT_PORTS:
                persist_port(settings["session_dir"], settings["node_id"], name, -1)
            # A raylet ends itself where its other agent, a process of Python, needs 15 s to write this.
            port = int(settings["runtime_env_agent_port"])
            persist_port(settings["session_dir"], settings["node_id"], "runtime_env_agent_port", port)
            command = [f"{AGENT_OPTION}/bin/sh {script}" if each.startswith(AGENT_OPTION) else each for each in command]
        return start(command, *arguments, **options)

    def do_not_ask(*_: Any) -> dict[str, Any]:
        return {"labels": {}, **dict.fromkeys(("node_manager_port", "runtime_env_agent_port", *AGENT_PORTS), 1)}

    with (
        mock.patch.object(services, "start_ray_process", start_without),
        mock.patch.object(services, "get_node", do_not_ask),
    ):
        yield


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
