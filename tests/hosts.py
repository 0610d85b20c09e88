"""Hosts on this machine, each with an address, a name, processes and a Ray folder of its own: Linux namespaces.

They share the rest of the file system, as nodes do that mount one. Needs root, iproute2 and util-linux.
"""

import contextlib
import os
import shutil
import signal
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
NAMESPACES = ("--net", "--pid", "--mount", "--uts", "--fork", "--kill-child", "--mount-proc")


def missing() -> str | None:
    """Why no hosts can be made here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "iproute2 is not installed"
    probe = ("ip", "link", "add", "probe", "type", "bridge")
    done = subprocess.run(["unshare", *NAMESPACES, *probe], capture_output=True, text=True, check=False)
    if done.returncode:
        return f"namespaces are not permitted: {done.stderr.strip()}"
    return None


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@dataclass(eq=False)
class Host:
    """A set of namespaces with one interface, and the node of Ray in it."""

    number: int
    bridge: str
    environment: dict[str, str]
    name: str = field(init=False)
    address: str = field(init=False)
    first: subprocess.Popen | None = None
    """Its process 1, with which all others end, and what they share with it."""

    def __post_init__(self) -> None:
        self.name, self.address = f"host{self.number}", f"{SUBNET}.{self.number}"

    @property
    def folder(self) -> Path:
        """What Ray's folder is on this host, as seen from outside."""
        return Path(f"{self.environment['RAY_TMPDIR']}-{self.number}")

    @property
    def plug(self) -> str:
        """The end of its cable that is in the bridge."""
        return f"{self.bridge}h{self.number}"

    def boot(self) -> None:
        """Bring it up without a node; also after it was killed."""
        self.folder.mkdir(exist_ok=True)
        names = self.folder / "hosts"
        names.write_text(f"127.0.0.1 localhost\n{self.address} {self.name}\n")
        setup = (
            f"hostname {self.name} && mount --bind {names} /etc/hosts && "
            f"mount --bind {self.folder} {self.environment['RAY_TMPDIR']} && echo up && exec sleep infinity"
        )
        self.first = subprocess.Popen(
            ["unshare", *NAMESPACES, "sh", "-c", setup], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
            start_new_session=True,
        )  # fmt: skip
        assert self.first.stdout is not None
        assert self.first.stdout.readline() == "up\n"
        run("ip", "link", "add", self.plug, "type", "veth", "peer", "name", "eth0", "netns", str(self._pid_of_first()))
        run("ip", "link", "set", self.plug, "master", self.bridge, "up")
        for words in (f"addr add {self.address}/24 dev eth0", "link set eth0 up", "link set lo up"):
            assert self.call("ip", *words.split()).returncode == 0

    def _pid_of_first(self) -> int:
        """As seen from outside: the child of `unshare`, which itself stays without."""
        assert self.first is not None
        (child,) = psutil.Process(self.first.pid).children()
        return child.pid

    def _inside(self, words: tuple[object, ...]) -> list[str]:
        return ["nsenter", f"--target={self._pid_of_first()}", "--net", "--pid", "--mount", "--uts", *map(str, words)]

    def popen(self, *words: object, **options: object) -> subprocess.Popen:
        """A process on this host."""
        return subprocess.Popen(self._inside(words), env=self.environment, start_new_session=True, text=True, **options)  # type: ignore[call-overload]

    def call(self, *words: object, timeout: float = 240) -> subprocess.CompletedProcess:
        return subprocess.run(
            self._inside(words), env=self.environment, capture_output=True, text=True, timeout=timeout, check=False
        )

    def start(self, *arguments: str) -> None:
        """Start its node, without waiting."""
        self.popen(
            RAY, "start", f"--node-ip-address={self.address}", "--disable-usage-stats", "--block", *arguments,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self) -> None:
        """End all that runs there by SIGKILL, as when the power fails."""
        if self.first is not None:
            os.kill(self._pid_of_first(), signal.SIGKILL)
            self.first.communicate()
            self.first = None
            # It goes with the namespace, but some time later.
            subprocess.run(["ip", "link", "del", self.plug], capture_output=True, check=False)

    def delete(self) -> None:
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def pids(self) -> list[int]:
        """Of the processes on this host, as seen from outside."""
        if self.first is None:
            return []
        space = Path(f"/proc/{self._pid_of_first()}/ns/pid").readlink()
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/ns/pid").readlink() == space:
                    found.append(pid)
        return found

    def titles(self) -> list[str]:
        """Command lines of the processes on this host."""
        found = []
        for pid in self.pids():
            with contextlib.suppress(psutil.Error):
                found.append(" ".join(psutil.Process(pid).cmdline()))
        return found

    def cut(self) -> None:
        """Take it off the network."""
        run("ip", "link", "set", self.plug, "down")

    def join(self) -> None:
        run("ip", "link", "set", self.plug, "up")

    def num_bytes(self) -> int:
        """Sent and received on its interface so far."""
        done = self.call("cat", "/proc/net/dev")
        (line,) = [line for line in done.stdout.splitlines() if "eth0" in line]
        fields = line.split(":")[1].split()
        return int(fields[0]) + int(fields[8])


@contextlib.contextmanager
def network(count: int) -> Iterator[list[Host]]:
    """Hosts without nodes; all that they run is ended with the block."""
    folder = tempfile.mkdtemp(prefix="rh")  # short: Ray's sockets lie below it
    bridge = f"c{os.getpid() % 100000}"
    run("ip", "link", "add", bridge, "type", "bridge")
    run("ip", "link", "set", bridge, "up")
    # What other tests of this process have told their Ray is not for these.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {
        **inherited, "PATH": f"{RAY.parent}:{os.environ['PATH']}", "COLUMNS": "200",
        "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled",
    }  # fmt: skip
    hosts = [Host(number, bridge, environment) for number in range(1, count + 1)]
    try:
        for host in hosts:
            host.boot()
        yield hosts
    finally:
        for host in reversed(hosts):
            host.delete()
        subprocess.run(["ip", "link", "del", bridge], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def start_head(head: Host, num_cpus: int, *arguments: str) -> None:
    head.start("--head", f"--port={PORT}", "--dashboard-host=0.0.0.0", f"--num-cpus={num_cpus}", *arguments)


def start_cluster(
    hosts: list[Host], num_cpus: int, *, head: tuple[str, ...] = (), others: tuple[str, ...] = ()
) -> None:
    """A head on the first host, a node on each other, with further arguments of `ray start`; waits for all."""
    address = f"{hosts[0].address}:{PORT}"
    for host in hosts:
        host.environment = host.environment | {"RAY_ADDRESS": address}
    start_head(hosts[0], num_cpus, *head)
    wait_for_nodes(hosts[0], 1)
    for number, host in enumerate(hosts[1:], start=2):
        host.start(f"--address={address}", f"--num-cpus={num_cpus}", *others)
        wait_for_nodes(hosts[0], number)


COUNT = "import ray; ray.init(logging_level='ERROR'); print(sum(node['Alive'] for node in ray.nodes()))"


def num_nodes(head: Host) -> int:
    try:
        done = head.call(sys.executable, "-c", COUNT, timeout=60)
    except subprocess.TimeoutExpired:
        return 0
    return int(done.stdout) if done.returncode == 0 else 0


def wait_for_nodes(head: Host, count: int, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while num_nodes(head) != count:
        assert time.monotonic() < deadline, f"not {count} nodes after {seconds:.0f} s"
        time.sleep(1)
