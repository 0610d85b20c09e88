"""Hosts with addresses of their own on this machine: network namespaces on a bridge, each with a node of Ray.

They share the file system, as nodes do that mount one, but for Ray's own folder. Needs root and iproute2.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

RAY = Path(sys.executable).parent / "ray"
PORT = 6379
SUBNET = "10.77.0"


def missing() -> str | None:
    """Why no hosts can be made here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    probe = f"clray-probe-{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"network namespaces are not permitted: {done.stderr.strip()}"
    run("ip", "netns", "del", probe)
    return None


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@dataclass
class Host:
    """A namespace with one interface, and the node of Ray in it."""

    number: int
    bridge: str
    environment: dict[str, str]
    raylet: subprocess.Popen | None = None
    name: str = field(init=False)
    address: str = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.address = f"{self.bridge}h{self.number}", f"{SUBNET}.{self.number}"

    def create(self) -> None:
        self.folder.mkdir()
        inside, outside = f"{self.bridge}i{self.number}", f"{self.bridge}o{self.number}"
        run("ip", "netns", "add", self.name)
        run("ip", "link", "add", outside, "type", "veth", "peer", "name", inside)
        run("ip", "link", "set", outside, "master", self.bridge, "up")
        run("ip", "link", "set", inside, "netns", self.name)
        for words in (("addr", "add", f"{self.address}/24", "dev", inside), ("link", "set", inside, "up"),
                      ("link", "set", "lo", "up")):  # fmt: skip
            run("ip", "-n", self.name, *words)
        # Workers find each other by the address that a host's own name has.
        names = Path("/etc/netns") / self.name
        names.mkdir(parents=True, exist_ok=True)
        (names / "hosts").write_text(f"127.0.0.1 localhost\n{self.address} {socket.gethostname()}\n")

    def delete(self) -> None:
        self.stop()
        subprocess.run(["ip", "netns", "del", self.name], capture_output=True, check=False)
        shutil.rmtree(Path("/etc/netns") / self.name, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def folder(self) -> Path:
        """What Ray's folder is on this host, as seen from outside."""
        return Path(f"{self.environment['RAY_TMPDIR']}-{self.number}")

    def _inside(self, words: tuple[object, ...]) -> list[str]:
        """`ip netns exec` gives each process its own mounts, so that the folder is bound anew for each."""
        bind = f'mount --bind {self.folder} {self.environment["RAY_TMPDIR"]} && exec "$@"'
        return ["ip", "netns", "exec", self.name, "sh", "-c", bind, "sh", *map(str, words)]

    def popen(self, *words: object, **options: object) -> subprocess.Popen:
        """A process on this host."""
        return subprocess.Popen(self._inside(words), env=self.environment, start_new_session=True, text=True, **options)  # type: ignore[call-overload]

    def call(self, *words: object, timeout: float = 240) -> subprocess.CompletedProcess:
        return subprocess.run(
            self._inside(words), env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def start(self, *arguments: str) -> None:
        """Start its node, without waiting."""
        self.raylet = self.popen(
            RAY, "start", f"--node-ip-address={self.address}", "--disable-usage-stats", "--block", *arguments,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self) -> None:
        """End its node and all that runs there by SIGKILL, as when the power fails."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.raylet is not None:
            self.raylet.wait()
            self.raylet = None

    def stop(self) -> None:
        if self.raylet is not None:
            os.killpg(self.raylet.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.raylet.wait(15)
        self.kill()

    def pids(self) -> list[int]:
        """Of the processes on this host."""
        done = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True, check=False)
        return [int(pid) for pid in done.stdout.split()]

    def titles(self) -> list[str]:
        """Command lines of the processes on this host."""
        found = []
        for pid in self.pids():
            with contextlib.suppress(psutil.Error):
                found.append(" ".join(psutil.Process(pid).cmdline()))
        return found

    def cut(self) -> None:
        """Take it off the network."""
        run("ip", "link", "set", f"{self.bridge}o{self.number}", "down")

    def join(self) -> None:
        run("ip", "link", "set", f"{self.bridge}o{self.number}", "up")

    def num_bytes(self) -> int:
        """Sent and received on its interface so far."""
        done = self.call("cat", "/proc/net/dev")
        (line,) = [line for line in done.stdout.splitlines() if f"{self.bridge}i" in line]
        fields = line.split(":")[1].split()
        return int(fields[0]) + int(fields[8])


@contextlib.contextmanager
def network(count: int) -> Iterator[list[Host]]:
    """Hosts without nodes; all that they run is ended with the block."""
    folder = tempfile.mkdtemp(prefix="rh")  # short: Ray's sockets lie below it
    bridge = f"c{os.getpid() % 100000}"
    run("ip", "link", "add", bridge, "type", "bridge")
    run("ip", "link", "set", bridge, "up")
    environment = {
        **os.environ, "PATH": f"{RAY.parent}:{os.environ['PATH']}", "COLUMNS": "200",
        "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled",
    }  # fmt: skip
    hosts = [Host(number, bridge, environment) for number in range(1, count + 1)]
    try:
        for host in hosts:
            host.create()
        yield hosts
    finally:
        for host in reversed(hosts):
            host.delete()
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def start_head(head: Host, num_cpus: int) -> None:
    # Ray would take the processes of the other hosts, which it can see here, for a head that runs already.
    (head.folder / "ray" / "ray_current_cluster").unlink(missing_ok=True)
    head.start("--head", f"--port={PORT}", "--dashboard-host=127.0.0.1", f"--num-cpus={num_cpus}")


def start_cluster(hosts: list[Host], num_cpus: int) -> str:
    """A head on the first host, a node on each other; returns the cluster's address once all are there."""
    head, *others = hosts
    address = f"{head.address}:{PORT}"
    for host in hosts:
        host.environment = host.environment | {"RAY_ADDRESS": address}
    start_head(head, num_cpus)
    wait_for_nodes(head, 1)
    for number, host in enumerate(others, start=2):
        host.start(f"--address={address}", f"--num-cpus={num_cpus}")
        wait_for_nodes(head, number)
    return address


COUNT = "import ray; ray.init(logging_level='ERROR'); print(sum(node['Alive'] for node in ray.nodes()))"


def num_nodes(head: Host) -> int:
    try:
        done = head.call(sys.executable, "-c", COUNT, timeout=30)
    except subprocess.TimeoutExpired:
        return 0
    return int(done.stdout) if done.returncode == 0 else 0


def wait_for_nodes(head: Host, count: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while num_nodes(head) != count:
        assert time.monotonic() < deadline, f"not {count} nodes after {seconds:.0f} s"
        time.sleep(1)
